#pragma once
// The coordinator: one lock, one decision at a time. Services translate calls into these, and decide nothing; every decision is
// made durable through the store before it is acted on or answered (law 4). docs/coordinator.md has the states of a job, what
// breaks a generation, and what a restart does.
//
// Thread-safe. Calls that wait take how long they may, and wake at Stop.
// Invariants: a generation's number is handed out once; events of a job are numbered without gaps; nothing that a client or a
// trainer was told is missing after a restart.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "coordinator/admission.h"
#include "coordinator/answers.h"
#include "coordinator/coordinator_options.h"
#include "coordinator/job_entry.h"
#include "coordinator/snapshot.h"
#include "coordinator/store.h"

namespace lockstep {

class Coordinator {
 public:
  using Events = JobEvents;
  using Orders = VersionedOrders;

  // Begins with what the store holds.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Create(CoordinatorOptions options, Store& store, const Clock& clock);

  // ---- Of clients.
  // Never given twice.
  std::string NewJobId();
  // The job that a submission of this name became, if it did. InvalidArgument: that is another job.
  absl::StatusOr<std::optional<std::string>> FindSubmitted(const std::string& request_id, const v1::Job& job) const;
  // `model`: stored already. The answer is `job_id`, or the id of the job that the submission had become before. InvalidArgument:
  // every error, a line each.
  absl::StatusOr<std::string> Submit(const std::string& job_id, const std::string& request_id, const v1::Job& job, ArtifactRecord model);
  absl::StatusOr<v1::JobStatus> Describe(const std::string& job_id) const;
  std::vector<v1::JobStatus> List(size_t limit) const;
  absl::StatusOr<v1::JobStatus> Cancel(const std::string& job_id);
  // At its next step boundary; back into the queue. InvalidArgument: a job that cannot. FailedPrecondition: it has ended.
  absl::StatusOr<v1::JobStatus> Pause(const std::string& job_id);
  absl::StatusOr<v1::JobStatus> Resume(const std::string& job_id);
  // From now on so many replicas, in place of what the job says. Errors as Pause.
  absl::StatusOr<v1::JobStatus> Scale(const std::string& job_id, const v1::Replicas& wanted);
  // The next events after `after`; waits for one up to `wait`. Unavailable: the coordinator stops.
  absl::StatusOr<Events> ReadEvents(const std::string& job_id, uint64_t after, absl::Duration wait) const;
  // As they were recorded, with what each step consumed; at most some hundred, none after the last.
  absl::StatusOr<std::vector<v1::Event>> ReadRecorded(const std::string& job_id, uint64_t after) const;
  absl::StatusOr<ArtifactRecord> FindArtifact(const std::string& job_id, const std::string& name) const;
  std::vector<v1::WorkerStatus> Workers() const;
  // False once a job has ended and none of its trainers is reported any more.
  absl::StatusOr<bool> MayStillLog(const std::string& job_id) const;

  // ---- Of workers. A stream is one Attend call.
  absl::StatusOr<uint64_t> Attach(const v1::WorkerReport& first);
  absl::Status Report(uint64_t stream, const v1::WorkerReport& report);
  void Detach(uint64_t stream);
  // Nothing: they did not change since `version` within `wait`. Unavailable: the coordinator stops. Aborted: no such stream.
  absl::StatusOr<std::optional<Orders>> NextOrders(uint64_t stream, uint64_t version, absl::Duration wait) const;

  // ---- Of trainers.
  // Nothing: not all ranks have come within `wait`; to be called again. Unavailable: the coordinator stops.
  absl::StatusOr<std::optional<v1::RendezvousResponse>> Rendezvous(const v1::RendezvousRequest& request, absl::Duration wait);
  // Nothing: no newer generation within `wait`; to be called again. FailedPrecondition: the trainer has no place, and waits for none.
  absl::StatusOr<std::optional<v1::TrainerOrder>> Regroup(const v1::RegroupRequest& request, absl::Duration wait);
  absl::Status ReportPlan(const v1::PlanReport& report);
  absl::StatusOr<v1::ProgressAck> ReportProgress(const v1::ProgressReport& report);
  absl::Status ReportEnd(const v1::EndReport& report);
  // FailedPrecondition unless the generation is the one that may store artifacts now.
  absl::Status MayStore(const std::string& job_id, uint64_t generation) const;
  // Gives back the records that this one takes the place of, whose files may go. Without a file: it is in the job's checkpoint.folder.
  absl::StatusOr<std::vector<ArtifactRecord>> StoreArtifact(const std::string& job_id, uint64_t generation, ArtifactRecord artifact);

  // What time alone decides: leases, waits that ended, generations whose pause is over. To be called a few times a lease.
  void Tick();
  void Stop();
  Snapshot TakeSnapshot() const;
  std::set<std::string> ArtifactFiles() const;  // as JOB/FILE

 private:
  Coordinator(CoordinatorOptions options, Store& store, const Clock& clock);
  absl::Status Load() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The lease of workers that ran something before a restart begins anew with it.
  void AwaitWorkers(const GenerationRecord& generation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::StatusOr<std::optional<std::string>> SubmittedAs(const std::string& request_id, const v1::Job& job) const
      ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<JobEntry*> Find(const std::string& job_id) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  // The generation that trains now, or that plans or trains, if it is this one; FailedPrecondition says which is.
  absl::StatusOr<JobEntry*> FindRunning(const std::string& job_id, uint64_t generation) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<JobEntry*> FindActive(const std::string& job_id, uint64_t generation) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  v1::JobStatus StatusOf(const JobEntry& job) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  v1::WorkerStatus StatusOf(const WorkerEntry& worker) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  // The one way in which a job changes: durable first, then memory, then whoever waits.
  absl::Status Commit(JobEntry& job, Draft draft) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Absorb(JobEntry& job, const v1::Event& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status End(JobEntry& job, v1::JobState state, std::string reason, v1::FailureKind failure) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The job's generation cannot go on: plan or train again, or fail.
  absl::Status Break(JobEntry& job, const std::string& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Trainers of these ranks are gone: the others go on as a generation of their own where that is possible, or all start again.
  absl::Status LoseRanks(JobEntry& job, std::set<uint32_t> ranks, const std::string& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The next generation: these (at least one), and the joiners that are ready.
  absl::Status Regather(JobEntry& job, Draft draft, std::vector<Seat> seats, const std::string& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Towards as many replicas as the job asks for; unless it may start some, only with what there is.
  absl::Status Grow(JobEntry& job, bool may_start) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Shrink(JobEntry& job, size_t most) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status AdmitJoiners(JobEntry& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LoseJoiner(JobEntry& job, const MemberRecord& record, const std::string& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What a trainer that asks with Regroup says by that.
  absl::Status TakeAsking(JobEntry& job, const v1::RegroupRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Of a generation whose trainers ask for a newer one.
  absl::Status WatchBroken(JobEntry& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  WorkerEntry* FindStream(uint64_t stream) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  absl::Status TakeTrainers(WorkerEntry& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeJoiners(const WorkerEntry& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeKilled(const WorkerEntry& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeEnded(const WorkerEntry& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeMissing(const WorkerEntry& worker) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Where this process was away itself, nobody's silence means anything.
  void ForgiveSilence(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Lose(const WorkerEntry& worker, const std::string& cause) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  v1::TrainerOrder OrderFor(const JobEntry& job, const MemberRecord& member) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  v1::WorkerOrders OrdersFor(const WorkerEntry& worker) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  void Schedule() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TryPlan(JobEntry& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // It has no place now. True: it waits for what other jobs hold, and nobody may overtake it.
  absl::StatusOr<bool> WaitOrRefuse(JobEntry& job, const Ask& ask, const std::vector<Offer>& offers, const std::string& reason)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<bool> TryRun(JobEntry& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status SetReason(JobEntry& job, const std::string& reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // For this job, if one is named.
  std::vector<Offer> Offers(const JobEntry* asking = nullptr) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool StillReported(const JobEntry& job) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Offer OfferOf(const WorkerEntry& worker, const JobEntry* asking) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  int64_t NowMs() const { return absl::ToUnixMillis(clock_.Now()); }

  const CoordinatorOptions options_;
  const Clock& clock_;
  Store& store_;  // synchronises itself

  mutable absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t decisions_ ABSL_GUARDED_BY(mutex_) = 0;  // that may have changed some worker's orders
  uint64_t last_stream_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t last_id_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time last_tick_ ABSL_GUARDED_BY(mutex_);
  // By id, which is the order of submission. Entries stay where they are.
  std::map<std::string, std::unique_ptr<JobEntry>> jobs_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::string> job_of_request_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> unended_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::unique_ptr<WorkerEntry>> workers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace lockstep
