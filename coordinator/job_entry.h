#pragma once
// A job, its generation and a worker as the coordinator holds them in memory: what is durable (record.h), and what reports say
// beside it, which a restarted coordinator learns again. Plain state, guarded by the coordinator's lock.

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "coordinator/generation.h"
#include "coordinator/record.h"

namespace lockstep {

struct JobEntry {
  JobRecord record;
  std::optional<Generation> generation;
  std::vector<Joiner> joiners;
  // Members that have no place in the newest generation: they run on to the step boundary at which the others leave theirs.
  std::vector<MemberRecord> retired;
  absl::Time no_joiner_before = absl::InfinitePast();
  uint32_t failed_joins = 0;  // since the last step
  // Workers whose trainers the others could not reach: nobody joins from there before the time is over.
  struct Avoided {
    uint32_t times = 0;
    absl::Time until = absl::InfinitePast();
  };
  std::map<std::string, Avoided> avoided;
  std::string in_hand;  // the samples of the step after the latest, as a trainer last told them
  std::map<std::string, ArtifactRecord> artifacts;
  uint64_t last_sequence = 0;
  std::optional<v1::StepRecord> latest;    // without sample paths
  std::deque<v1::EpochRecord> epochs;      // the newest kEpochsKept
  absl::flat_hash_set<std::string> notes;  // said already; replicas and generations repeat each other's
  // The newest events, for those who watch as they happen.
  std::deque<std::shared_ptr<const v1::Event>> tail;
  size_t tail_bytes = 0;
  absl::Time not_before = absl::InfinitePast();  // of the next generation
  absl::Time cancel_since = absl::InfiniteFuture();
  v1::PhaseSeconds phases;  // sums over the steps that this coordinator took in
  uint64_t samples = 0;

  Joiner* FindJoiner(uint64_t process_generation, uint32_t process_rank) {
    for (Joiner& one : joiners) {
      if (one.seat.record.process_generation == process_generation && one.seat.record.process_rank == process_rank) return &one;
    }
    return nullptr;
  }
  // Every process that is to run now.
  std::vector<MemberRecord> Processes() const {
    std::vector<MemberRecord> processes;
    if (!Active()) return processes;
    for (const Seat& seat : generation->Living()) processes.push_back(seat.record);
    for (const Joiner& joiner : joiners) processes.push_back(joiner.seat.record);
    processes.insert(processes.end(), retired.begin(), retired.end());
    return processes;
  }
  // Names of its checkpoints, the newest first.
  std::vector<std::string> Checkpoints() const {
    std::vector<std::string> names;
    for (const auto& [name, artifact] : artifacts) {
      if (name.starts_with("checkpoint-")) names.insert(names.begin(), name);
    }
    return names;
  }
  // Whether the generation's trainers are to run.
  bool Active() const {
    if (!generation) return false;
    const v1::JobState state = generation->record.role == v1::PLAN ? v1::PLANNING : v1::RUNNING;
    return record.state == state;
  }
};

struct WorkerEntry {
  v1::WorkerReport report;  // the newest, without its logs
  uint64_t stream = 0;      // the Attend call that it speaks through; 0: none now
  absl::Time last_seen;
  bool lost = false;
  uint64_t reports = 0;  // taken in so far
};

// A decision in the making: the next record of a job, and what is told about it.
struct Draft {
  JobRecord record;
  std::vector<v1::Event> events;
  std::optional<GenerationRecord> generation;
  std::optional<ArtifactRecord> artifact;
  std::vector<std::string> dropped_artifacts;

  explicit Draft(const JobRecord& from) : record(from) {}
  v1::StateChange& MoveTo(v1::JobState state, std::string reason, v1::FailureKind failure = v1::NO_FAILURE) {
    record.state = state;
    record.reason = reason;
    record.failure = failure;
    v1::StateChange& change = *events.emplace_back().mutable_state();
    change.set_state(state);
    change.set_reason(std::move(reason));
    change.set_failure(failure);
    return change;
  }
  void Note(std::string text) { events.emplace_back().set_note(std::move(text)); }
};

}  // namespace lockstep
