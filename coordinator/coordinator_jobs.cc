// What clients ask of the coordinator.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "coordinator/coordinator.h"
#include "coordinator/job_check.h"
#include "coordinator/job_id.h"
#include "coordinator/membership.h"

namespace lockstep {
namespace {

constexpr size_t kEventsAtOnce = 500;
constexpr size_t kJobsInSnapshot = 100;
constexpr size_t kMostRequestIdBytes = 100;
constexpr int64_t kFirstSecond = 1'577'836'800;  // 2020-01-01T00:00:00Z

}  // namespace

std::string Coordinator::NewJobId() {
  absl::MutexLock lock(&mutex_);
  last_id_ = std::max(last_id_ + 1, absl::ToUnixSeconds(clock_.Now()) - kFirstSecond);
  return JobIdOf(last_id_);
}

absl::StatusOr<std::optional<std::string>> Coordinator::FindSubmitted(const std::string& request_id, const v1::Job& job) const {
  if (request_id.size() > kMostRequestIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat("request_id: it has ", request_id.size(), " bytes, at most ", kMostRequestIdBytes));
  }
  absl::MutexLock lock(&mutex_);
  return SubmittedAs(request_id, job);
}

absl::StatusOr<std::optional<std::string>> Coordinator::SubmittedAs(const std::string& request_id, const v1::Job& job) const {
  const auto found = job_of_request_.find(request_id);
  if (found == job_of_request_.end()) return std::nullopt;
  if (jobs_.at(found->second)->record.job.SerializeAsString() != job.SerializeAsString()) {
    return absl::InvalidArgumentError(
        absl::StrCat("request_id: ", request_id, " stands for job ", found->second, ", which is another; each submission needs its own"));
  }
  return found->second;
}

absl::StatusOr<std::string> Coordinator::Submit(const std::string& job_id, const std::string& request_id, const v1::Job& job,
                                                ArtifactRecord model) {
  std::vector<std::string> errors = CheckJob(job);
  if (model.bytes != job.model().size_bytes() || model.xxh3_128 != job.model().xxh3_128()) {
    errors.push_back(absl::StrCat("model: ", job.model().file_name(), " was announced with ", job.model().size_bytes(),
                                  " bytes and checksum ", job.model().xxh3_128(), ", and came with ", model.bytes, " and ", model.xxh3_128,
                                  "; did it change while it was sent?"));
  }
  if (!errors.empty()) return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(const std::optional<std::string> before, SubmittedAs(request_id, job));
  if (before) return *before;
  auto entry = std::make_unique<JobEntry>();
  entry->record.id = job_id;
  entry->record.request_id = request_id;
  entry->record.job = job;
  entry->record.submitted_unix_ms = NowMs();
  Draft draft(entry->record);
  draft.artifact = std::move(model);
  draft.MoveTo(v1::SUBMITTED, workers_.empty() ? "waiting to plan: no worker is connected" : "waiting to plan");
  for (std::string& note : JobNotes(job)) draft.Note(std::move(note));
  RETURN_IF_ERROR(Commit(*entry, std::move(draft)));
  unended_.insert(job_id);
  jobs_.emplace(job_id, std::move(entry));
  if (!request_id.empty()) job_of_request_.emplace(request_id, job_id);
  Schedule();
  return job_id;
}

v1::JobStatus Coordinator::StatusOf(const JobEntry& job) const {
  const JobRecord& record = job.record;
  v1::JobStatus status;
  status.set_job_id(record.id);
  *status.mutable_job() = record.job;
  if (record.plan && record.plan->has_resolved()) *status.mutable_resolved() = record.plan->resolved();
  if (record.scale && status.has_resolved()) {
    status.mutable_resolved()->mutable_replicas()->set_min(record.scale->min());
    status.mutable_resolved()->mutable_replicas()->set_max(record.scale->max());
  }
  status.set_state(record.state);
  status.set_reason(record.reason);
  status.set_failure(record.failure);
  status.set_generation(record.generation);
  if (job.latest) *status.mutable_latest() = *job.latest;
  status.set_total_steps(record.total_steps);
  status.mutable_epochs()->Assign(job.epochs.begin(), job.epochs.end());
  if (record.result) *status.mutable_result() = *record.result;
  if (job.generation && job.generation->record.role == v1::TRAIN) {
    for (size_t rank = 0; rank < job.generation->trainers.size(); ++rank) {
      const Trainer& trainer = job.generation->trainers[rank];
      const v1::Member& member = job.generation->record.members[rank].member;
      v1::ReplicaStatus& replica = *status.add_replicas();
      replica.set_rank(member.rank());
      replica.set_worker_id(member.worker_id());
      replica.set_first_virtual_replica(member.first_virtual_replica());
      replica.set_virtual_replica_count(member.virtual_replica_count());
      *replica.mutable_memory() = trainer.status.memory();
      replica.set_state(!job.Active() || trainer.ended ? "ended" : trainer.started ? "running" : "starting");
      replica.set_pid(trainer.pid);
    }
    DescribeActivity(job, status);
  }
  for (const Joiner& joiner : job.joiners) {
    v1::ReplicaStatus& replica = *status.add_joining();
    replica.set_worker_id(joiner.seat.record.member.worker_id());
    *replica.mutable_memory() = joiner.seat.trainer.status.memory();
    replica.set_state(joiner.ready() ? "ready" : joiner.seat.trainer.started ? "warming up" : "starting");
    replica.set_pid(joiner.seat.trainer.pid);
  }
  for (const auto& artifact : job.artifacts) status.add_artifacts(artifact.first);
  status.set_submitted_unix_ms(record.submitted_unix_ms);
  status.set_started_unix_ms(record.started_unix_ms);
  status.set_ended_unix_ms(record.ended_unix_ms);
  if (!record.plan) return status;
  *status.mutable_plan_notes() = record.plan->notes();
  if (record.plan->has_profile()) {
    // Describe alone has the picture: a list of many jobs is one message.
    DropPicture(*status.mutable_profile() = record.plan->profile());
  }
  return status;
}

absl::StatusOr<v1::JobStatus> Coordinator::Describe(const std::string& job_id) const {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(const JobEntry* job, Find(job_id));
  v1::JobStatus status = StatusOf(*job);
  if (status.has_profile()) *status.mutable_profile() = job->record.plan->profile();
  return status;
}

std::vector<v1::JobStatus> Coordinator::List(size_t limit) const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::JobStatus> jobs;
  for (auto at = jobs_.rbegin(); at != jobs_.rend() && jobs.size() < limit; ++at) {
    v1::JobStatus& status = jobs.emplace_back(StatusOf(*at->second));
    // A list of long jobs is one message, and must stay one.
    if (status.epochs_size() > 1) status.mutable_epochs()->DeleteSubrange(0, status.epochs_size() - 1);
  }
  return jobs;
}

absl::StatusOr<v1::JobStatus> Coordinator::Cancel(const std::string& job_id) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, Find(job_id));
  if (HasEnded(job->record.state) || job->record.cancel_wanted) return StatusOf(*job);
  // Only ranks that have met are on their way to a step boundary.
  if (job->record.state == v1::RUNNING && job->generation->awaited_since == absl::InfiniteFuture() && !job->generation->record.waits) {
    Draft draft(job->record);
    draft.record.cancel_wanted = true;
    draft.MoveTo(v1::RUNNING, "cancelling: ends at the next step boundary")
        .set_replicas(static_cast<uint32_t>(job->generation->trainers.size()));
    RETURN_IF_ERROR(Commit(*job, std::move(draft)));
    job->cancel_since = clock_.Now();
  } else {
    RETURN_IF_ERROR(End(*job, v1::CANCELLED, "cancelled", v1::NO_FAILURE));
    Schedule();
  }
  return StatusOf(*job);
}

absl::StatusOr<v1::JobStatus> Coordinator::Pause(const std::string& job_id) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, Find(job_id));
  const v1::Job& what = job->record.job;
  if (HasEnded(job->record.state)) {
    return absl::FailedPreconditionError(absl::StrCat("job ", job_id, " has ended: it is ", v1::JobState_Name(job->record.state)));
  }
  const bool trains = what.kind() != v1::Job::EVALUATE && what.kind() != v1::Job::PREDICT && !what.plan_only();
  if (!trains || what.checkpoint().never()) {
    return absl::InvalidArgumentError(absl::StrCat("job ", job_id, " keeps no checkpoint that it could go on from (",
                                                   trains ? "checkpoint.every is never" : "it does not train", "); cancel it instead"));
  }
  if (job->record.state == v1::PAUSED || job->record.pause_wanted || job->record.cancel_wanted) return StatusOf(*job);
  Draft draft(job->record);
  if (job->record.state == v1::QUEUED) {
    draft.MoveTo(v1::PAUSED, "paused").set_total_steps(job->record.total_steps);
  } else {
    draft.record.pause_wanted = true;
    draft.MoveTo(job->record.state, "pausing: ends at the next step boundary, with a checkpoint").set_total_steps(job->record.total_steps);
  }
  RETURN_IF_ERROR(Commit(*job, std::move(draft)));
  Schedule();
  return StatusOf(*job);
}

absl::StatusOr<v1::JobStatus> Coordinator::Resume(const std::string& job_id) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, Find(job_id));
  if (HasEnded(job->record.state)) {
    return absl::FailedPreconditionError(absl::StrCat("job ", job_id, " has ended: it is ", v1::JobState_Name(job->record.state)));
  }
  if (job->record.state != v1::PAUSED && !job->record.pause_wanted) return StatusOf(*job);
  Draft draft(job->record);
  draft.record.pause_wanted = false;
  draft.MoveTo(job->record.state == v1::PAUSED ? v1::QUEUED : job->record.state, "resumed").set_total_steps(job->record.total_steps);
  RETURN_IF_ERROR(Commit(*job, std::move(draft)));
  Schedule();
  return StatusOf(*job);
}

absl::StatusOr<Coordinator::Events> Coordinator::ReadEvents(const std::string& job_id, uint64_t after, absl::Duration wait) const {
  Events page;
  uint64_t last = 0;
  {
    absl::MutexLock lock(&mutex_);
    ASSIGN_OR_RETURN(const JobEntry* job, Find(job_id));
    if (after > job->last_sequence) {
      return absl::InvalidArgumentError(
          absl::StrCat("after_sequence is ", after, ", the newest event of job ", job_id, " is ", job->last_sequence));
    }
    const auto ready = [this, job, after]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
      return stopping_ || job->last_sequence > after || HasEnded(job->record.state);
    };
    mutex_.AwaitWithTimeout(absl::Condition(&ready), wait);
    if (stopping_) return absl::UnavailableError("the coordinator stops");
    last = job->last_sequence;
    page.complete = HasEnded(job->record.state) && last - after <= kEventsAtOnce;
    if (job->tail.empty() || job->tail.front()->sequence() > after + 1) {
      // Not in memory: read below, without the lock.
    } else {
      for (size_t at = after + 1 - job->tail.front()->sequence(); at < job->tail.size() && page.events.size() < kEventsAtOnce; ++at) {
        page.events.push_back(job->tail[at]);
      }
      return page;
    }
  }
  if (last == after) return page;
  ASSIGN_OR_RETURN(std::vector<v1::Event> events, store_.ReadEvents(job_id, after, kEventsAtOnce));
  for (v1::Event& event : events) {
    if (event.has_step()) event.mutable_step()->clear_leaves();
    page.events.push_back(std::make_shared<const v1::Event>(std::move(event)));
  }
  return page;
}

absl::StatusOr<std::vector<v1::Event>> Coordinator::ReadRecorded(const std::string& job_id, uint64_t after) const {
  {
    absl::MutexLock lock(&mutex_);
    RETURN_IF_ERROR(Find(job_id).status());
  }
  return store_.ReadEvents(job_id, after, kEventsAtOnce);
}

absl::StatusOr<ArtifactRecord> Coordinator::FindArtifact(const std::string& job_id, const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(const JobEntry* job, Find(job_id));
  const auto found = job->artifacts.find(name);
  if (found != job->artifacts.end()) return found->second;
  const std::string names = absl::StrJoin(job->artifacts, ", ", [](std::string* out, const auto& entry) { out->append(entry.first); });
  return absl::NotFoundError(absl::StrCat("job ", job_id, " has no artifact \"", name, "\"; it has ", names));
}

absl::StatusOr<bool> Coordinator::MayStillLog(const std::string& job_id) const {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(const JobEntry* job, Find(job_id));
  return !HasEnded(job->record.state) || StillReported(*job);
}

Snapshot Coordinator::TakeSnapshot() const {
  Snapshot snapshot;
  snapshot.durable = store_.health().ok();
  snapshot.workers = Workers();
  absl::MutexLock lock(&mutex_);
  for (auto at = jobs_.rbegin(); at != jobs_.rend(); ++at) {
    const JobEntry& job = *at->second;
    ++snapshot.jobs_by_state[job.record.state];
    if (snapshot.jobs.size() >= kJobsInSnapshot) continue;
    snapshot.jobs.push_back({StatusOf(job), job.phases, job.samples});
  }
  for (const auto& [id, worker] : workers_) snapshot.booked_bytes[id] = worker->lost ? 0 : OfferOf(*worker, nullptr).BookedBytes();
  return snapshot;
}

std::set<std::string> Coordinator::ArtifactFiles() const {
  absl::MutexLock lock(&mutex_);
  std::set<std::string> files;
  for (const auto& [id, job] : jobs_) {
    for (const auto& artifact : job->artifacts) files.insert(absl::StrCat(id, "/", artifact.second.file));
  }
  return files;
}

}  // namespace lockstep
