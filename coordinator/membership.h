#pragma once
// What the state of a job says about its members: pure functions. The decisions that follow are made in coordinator_members.cc.

#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/admission.h"
#include "coordinator/job_entry.h"

namespace lockstep {

// What the job asks for now. REQUIRES: it was planned.
absl::StatusOr<Ask> AskFor(const JobEntry& job);
// Whether it runs, and its members may change: each of them holds all of its state.
bool IsElastic(const JobEntry& job);
bool AllStepsDone(const JobEntry& job);
// Of the newest checkpoint; 0: there is none.
uint64_t CheckpointStep(const JobEntry& job);
// Counts a death in the draft. True: there were more than `most` without a new step, and the draft fails the job.
bool CountDeath(const JobEntry& job, const std::string& cause, uint32_t most, Draft& draft);
// Of a trainer that is started again after so many failures: 0, 0, 1, 3, 7 … seconds, five minutes at most.
absl::Duration PauseAfter(uint32_t failures);
// What its replicas are doing, as they last said; which of them the others wait for; who is slower than the rest.
void DescribeActivity(const JobEntry& job, v1::JobStatus& status);
// Of a generation that broke though all its trainers live: without whom it may go on, because most of the others could not hear one of
// them. All of that one's worker, if others are elsewhere, since what is lost is a host's connection. Empty: nobody was silent.
std::set<uint32_t> UnreachableRanks(const Generation& generation);
// "1 replica", "rank 1", "ranks 1, 3".
std::string Replicas(size_t count);
std::string Ranks(const std::set<uint32_t>& ranks);

}  // namespace lockstep
