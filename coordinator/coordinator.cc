#include "coordinator/coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/job_id.h"
#include "coordinator/membership.h"

namespace lockstep {
namespace {

// Events of a job that are kept in memory for those who watch it live; older ones are read from the store.
constexpr size_t kTailEvents = 2'000;
constexpr size_t kTailBytes = 1 << 20;
constexpr absl::Duration kBackoff = absl::Seconds(1);

void KeepForWatchers(JobEntry& job, v1::Event event) {
  // The ledger is read from the store.
  if (event.has_step()) event.mutable_step()->clear_leaves();
  job.tail_bytes += event.ByteSizeLong();
  job.tail.push_back(std::make_shared<const v1::Event>(std::move(event)));
  while (!job.tail.empty() && (job.tail.size() > kTailEvents || job.tail_bytes > kTailBytes)) {
    job.tail_bytes -= job.tail.front()->ByteSizeLong();
    job.tail.pop_front();
  }
}

}  // namespace

Coordinator::Coordinator(CoordinatorOptions options, Store& store, const Clock& clock)
    : options_(std::move(options)), clock_(clock), store_(store), last_tick_(clock.Now()) {}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(CoordinatorOptions options, Store& store, const Clock& clock) {
  std::unique_ptr<Coordinator> coordinator(new Coordinator(std::move(options), store, clock));
  absl::MutexLock lock(&coordinator->mutex_);
  RETURN_IF_ERROR(coordinator->Load());
  return coordinator;
}

absl::Status Coordinator::Load() {
  ASSIGN_OR_RETURN(std::vector<StoredJob> stored, store_.LoadJobs());
  for (StoredJob& from : stored) {
    auto job = std::make_unique<JobEntry>();
    job->record = std::move(from.record);
    if (from.generation) job->generation.emplace(std::move(*from.generation));
    for (ArtifactRecord& artifact : from.artifacts) job->artifacts.emplace(artifact.name, artifact);
    job->last_sequence = from.last_sequence;
    if (from.latest) from.latest->clear_sample_paths(), from.latest->clear_leaves();
    job->latest = std::move(from.latest);
    job->epochs = std::move(from.epochs);
    job->notes.insert(from.notes.begin(), from.notes.end());
    if (job->record.cancel_wanted) job->cancel_since = clock_.Now();
    const std::string id = job->record.id;
    last_id_ = std::max(last_id_, NumberOfJobId(id));
    if (!HasEnded(job->record.state)) {
      unended_.insert(id);
      LOG_INFO("job=%s state=%s generation=%d step=%d action=resumed", id, v1::JobState_Name(job->record.state), job->record.generation,
               job->latest ? job->latest->step() : 0);
    }
    if (!job->record.request_id.empty()) job_of_request_.emplace(job->record.request_id, id);
    if (job->Active()) AwaitWorkers(job->generation->record);
    jobs_.emplace(id, std::move(job));
  }
  return absl::OkStatus();
}

void Coordinator::AwaitWorkers(const GenerationRecord& generation) {
  for (const MemberRecord& record : generation.members) {
    std::unique_ptr<WorkerEntry>& worker = workers_[record.member.worker_id()];
    if (worker == nullptr) worker = std::make_unique<WorkerEntry>();
    worker->report.set_worker_id(record.member.worker_id());
    worker->last_seen = clock_.Now();
  }
}

void Coordinator::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

absl::StatusOr<JobEntry*> Coordinator::Find(const std::string& job_id) const {
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) return absl::NotFoundError(absl::StrCat("no job is called ", job_id));
  return found->second.get();
}

absl::StatusOr<JobEntry*> Coordinator::FindRunning(const std::string& job_id, uint64_t generation) const {
  ASSIGN_OR_RETURN(JobEntry * job, Find(job_id));
  if (job->record.state != v1::RUNNING || job->generation->record.number != generation) {
    return absl::FailedPreconditionError(absl::StrCat("job ", job_id, " does not run as generation ", generation, ": it is ",
                                                      v1::JobState_Name(job->record.state), ", its newest generation is ",
                                                      job->record.generation));
  }
  return job;
}

absl::StatusOr<JobEntry*> Coordinator::FindActive(const std::string& job_id, uint64_t generation) const {
  ASSIGN_OR_RETURN(JobEntry * job, Find(job_id));
  if (job->Active() && job->generation->record.number == generation) return job;
  return absl::FailedPreconditionError(absl::StrCat("generation ", generation, " of job ", job_id, " may store nothing: the job is ",
                                                    v1::JobState_Name(job->record.state), ", its newest generation is ",
                                                    job->generation ? job->generation->record.number : 0));
}

absl::Status Coordinator::Commit(JobEntry& job, Draft draft) {
  Change change;
  change.job_id = job.record.id;
  uint64_t sequence = job.last_sequence;
  for (v1::Event& event : draft.events) {
    event.set_sequence(++sequence);
    event.set_unix_ms(NowMs());
  }
  const bool moved = std::any_of(draft.events.begin(), draft.events.end(), [](const v1::Event& event) { return event.has_state(); });
  if (HasEnded(draft.record.state) && draft.record.ended_unix_ms == 0) draft.record.ended_unix_ms = NowMs();
  change.job = draft.record;
  change.events = draft.events;
  change.generation = draft.generation;
  change.artifact = draft.artifact;
  change.dropped_artifacts = draft.dropped_artifacts;
  RETURN_IF_ERROR(store_.Apply(change));

  job.record = std::move(draft.record);
  job.last_sequence = sequence;
  if (draft.generation) job.generation.emplace(std::move(*draft.generation));
  for (const std::string& name : draft.dropped_artifacts) job.artifacts.erase(name);
  if (draft.artifact) job.artifacts[draft.artifact->name] = *draft.artifact;
  for (v1::Event& event : draft.events) {
    Absorb(job, event);
    KeepForWatchers(job, std::move(event));
  }
  if (moved) {
    ++decisions_;
    LOG_INFO("job=%s state=%s generation=%d reason=\"%s\"", job.record.id, v1::JobState_Name(job.record.state), job.record.generation,
             absl::CEscape(job.record.reason));
  }
  if (job.record.state != v1::RUNNING) {
    job.joiners.clear();
    job.retired.clear();
  }
  if (HasEnded(job.record.state)) {
    unended_.erase(job.record.id);
    // Whoever asks for events from now on reads them from the store.
    job.notes = {};
    job.tail.clear();
    job.tail_bytes = 0;
  }
  return absl::OkStatus();
}

void Coordinator::Absorb(JobEntry& job, const v1::Event& event) {
  if (event.has_step()) {
    job.latest = event.step();
    job.latest->clear_sample_paths();
    job.latest->clear_leaves();
    const v1::PhaseSeconds& phases = event.step().phases();
    job.phases.set_wait_for_data(job.phases.wait_for_data() + phases.wait_for_data());
    job.phases.set_forward(job.phases.forward() + phases.forward());
    job.phases.set_backward(job.phases.backward() + phases.backward());
    job.phases.set_reduce(job.phases.reduce() + phases.reduce());
    job.phases.set_update(job.phases.update() + phases.update());
    job.phases.set_total(job.phases.total() + phases.total());
    job.samples += event.step().samples();
    job.failed_joins = 0;
    for (size_t i = 0; !job.avoided.empty() && job.generation && i < job.generation->record.members.size(); ++i) {
      job.avoided.erase(job.generation->record.members[i].member.worker_id());
    }
  }
  if (event.has_epoch()) KeepEpoch(job.epochs, event.epoch());
  if (event.has_note()) job.notes.insert(event.note());
}

absl::Status Coordinator::End(JobEntry& job, v1::JobState state, std::string reason, v1::FailureKind failure) {
  Draft draft(job.record);
  draft.MoveTo(state, std::move(reason), failure);
  return Commit(job, std::move(draft));
}

absl::Status Coordinator::Break(JobEntry& job, const std::string& cause) {
  Draft draft(job.record);
  if (job.record.cancel_wanted) return End(job, v1::CANCELLED, "cancelled", v1::NO_FAILURE);
  const uint64_t step = job.latest ? job.latest->step() : 0;
  if (CountDeath(job, cause, options_.most_deaths, draft)) {
    // It has failed.
  } else if (job.record.state == v1::PLANNING) {
    draft.MoveTo(v1::SUBMITTED, absl::StrCat("waiting to plan again: ", cause));
  } else {
    const uint64_t from = CheckpointStep(job);
    draft.MoveTo(job.record.pause_wanted ? v1::PAUSED : v1::QUEUED,
                 absl::StrCat(job.record.pause_wanted ? "paused" : "starting again", " from ",
                              from > 0 ? absl::StrCat("the checkpoint of step ", from) : "the submitted state", ": ", cause));
    draft.record.pause_wanted = false;
    if (step > from) draft.Note(absl::StrCat("steps up to ", step, " are computed again, and compared with what is recorded of them"));
  }
  const absl::Duration pause = (draft.record.deaths - 1) * kBackoff;
  RETURN_IF_ERROR(Commit(job, std::move(draft)));
  job.not_before = clock_.Now() + pause;
  return absl::OkStatus();
}

}  // namespace lockstep
