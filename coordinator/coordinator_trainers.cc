// What trainers ask of the coordinator and tell it: rendezvous, plan, progress, end, artifacts.
#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "coordinator/coordinator.h"
#include "coordinator/progress.h"

namespace lockstep {
namespace {

// Of one job; each is remembered, so that it is told once.
constexpr size_t kMostNotes = 1'000;
constexpr char kNoMoreNotes[] = "further notes of this job are dropped";

// Those that were not told before: replicas and generations repeat each other's.
void AddNewNotes(const JobEntry& job, const v1::ProgressReport& report, Draft& draft) {
  std::set<std::string> fresh;
  for (const std::string& note : report.notes()) {
    const size_t told = job.notes.size() + fresh.size();
    if (told >= kMostNotes || job.notes.contains(note)) continue;
    const std::string& text = told + 1 < kMostNotes ? note : kNoMoreNotes;
    if (fresh.insert(text).second) draft.Note(text);
  }
}

// Steps of the report that may be durable already: up to this one; 0: none.
uint64_t LastKnown(const v1::ProgressReport& report, uint64_t latest) {
  uint64_t last = 0;
  for (const v1::StepRecord& step : report.steps()) last = std::max(last, step.step());
  return std::min(last, latest);
}

}  // namespace

absl::StatusOr<std::optional<v1::RendezvousResponse>> Coordinator::Rendezvous(const v1::RendezvousRequest& request, absl::Duration wait) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, FindRunning(request.job_id(), request.generation()));
  Generation& generation = *job->generation;
  const Meeting::Environment environment(request.environment().begin(), request.environment().end());
  if (absl::Status joined = generation.meeting.Join(request.rank(), request.endpoint(), environment); !joined.ok()) {
    if (absl::IsFailedPrecondition(joined)) RETURN_IF_ERROR(End(*job, v1::FAILED, std::string(joined.message()), v1::TRAINING_FAILED));
    if (absl::IsAborted(joined)) RETURN_IF_ERROR(Break(*job, std::string(joined.message())));
    Schedule();
    return joined;
  }
  if (generation.finishing && !generation.meeting.complete()) {
    // All steps are done, and whoever stores the results will not come: nobody else is needed. It may be one that a worker which died
    // started anew, under the name of the one that the others had met.
    std::vector<Seat> seats = generation.Living();
    std::erase_if(seats, [&](const Seat& seat) { return seat.record.member.rank() == request.rank(); });
    const std::string cause = absl::StrCat("rank ", request.rank(), " is not needed for the results");
    RETURN_IF_ERROR(seats.empty() ? Break(*job, cause) : Regather(*job, Draft(job->record), std::move(seats), cause));
    Schedule();
    return absl::FailedPreconditionError(cause);
  }
  // Awaited from the first call on also where a coordinator was restarted in between.
  if (generation.awaited_since == absl::InfiniteFuture() && !generation.finishing) generation.awaited_since = clock_.Now();
  const auto changed = [this, job, &request]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !job->Active() || job->generation->record.number != request.generation() || job->generation->meeting.complete();
  };
  mutex_.AwaitWithTimeout(absl::Condition(&changed), wait);
  RETURN_IF_ERROR(FindRunning(request.job_id(), request.generation()).status());
  if (job->generation->meeting.complete()) {
    job->generation->awaited_since = absl::InfiniteFuture();
    v1::RendezvousResponse response = job->generation->meeting.Response();
    RETURN_IF_ERROR(AdmitJoiners(*job));
    return response;
  }
  if (stopping_) return absl::UnavailableError("the coordinator stops");
  return std::nullopt;
}

absl::Status Coordinator::TakeAsking(JobEntry& job, const v1::RegroupRequest& request) {
  if (!job.Active()) return absl::OkStatus();
  if (Joiner* joiner = job.FindJoiner(request.process_generation(), request.process_rank()); joiner != nullptr) {
    if (joiner->ready()) return absl::OkStatus();
    joiner->ready_since = clock_.Now();
    return AdmitJoiners(job);
  }
  Generation& generation = *job.generation;
  const auto rank = generation.RankOf(request.process_generation(), request.process_rank());
  if (!rank || generation.record.waits) return absl::OkStatus();
  if (request.finished()) {
    generation.finishing = true;
    generation.awaited_since = absl::InfiniteFuture();
    return absl::OkStatus();
  }
  if (generation.record.number != request.generation()) return absl::OkStatus();
  if (!generation.asked.insert(*rank).second) return absl::OkStatus();
  if (generation.asked_since == absl::InfiniteFuture()) generation.asked_since = clock_.Now();
  if (generation.why_asked.empty()) generation.why_asked = request.reason();
  for (const uint32_t silent : request.silent_ranks()) ++generation.not_heard[silent];
  return absl::OkStatus();
}

absl::StatusOr<std::optional<v1::TrainerOrder>> Coordinator::Regroup(const v1::RegroupRequest& request, absl::Duration wait) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, Find(request.job_id()));
  RETURN_IF_ERROR(TakeAsking(*job, request));
  // The member that it is now, in a generation that goes on without it if it does not come.
  const auto place = [&]() -> const MemberRecord* {
    if (!job->Active() || job->record.state != v1::RUNNING) return nullptr;
    const auto rank = job->generation->RankOf(request.process_generation(), request.process_rank());
    return rank && !job->generation->trainers[*rank].ended ? &job->generation->record.members[*rank] : nullptr;
  };
  const auto newer = [&] { return job->generation->record.number > request.generation() && !job->generation->record.waits; };
  const auto warming = [&] { return job->Active() && job->FindJoiner(request.process_generation(), request.process_rank()) != nullptr; };
  const auto decided = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || (place() == nullptr ? !warming() : newer()); };
  mutex_.AwaitWithTimeout(absl::Condition(&decided), wait);
  if (stopping_) return absl::UnavailableError("the coordinator stops");
  if (!decided()) return std::nullopt;
  if (const MemberRecord* member = place(); member != nullptr) {
    v1::TrainerOrder order = OrderFor(*job, *member);
    order.set_joins(false);
    return order;
  }
  return absl::FailedPreconditionError(absl::StrCat("job ", request.job_id(), " goes on without this trainer: it is ",
                                                    v1::JobState_Name(job->record.state), ", its newest generation is ",
                                                    job->record.generation));
}

absl::Status Coordinator::ReportPlan(const v1::PlanReport& report) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, Find(report.job_id()));
  // Made again after an answer that was lost, or too late.
  if (job->record.plan) return absl::OkStatus();
  if (job->record.state != v1::PLANNING) {
    return absl::FailedPreconditionError(
        absl::StrCat("job ", report.job_id(), " is not being planned: it is ", v1::JobState_Name(job->record.state)));
  }
  Draft draft(job->record);
  v1::PlanReport& plan = draft.record.plan.emplace(report);
  draft.record.deaths = 0;
  draft.record.total_steps = report.total_steps();
  std::vector<std::string> errors(report.errors().begin(), report.errors().end());
  v1::FailureKind failure = report.failure() == v1::NO_FAILURE ? v1::BAD_INPUT : report.failure();
  if (errors.empty() && !report.has_resolved()) errors.emplace_back("planning reported neither a plan nor an error");
  const v1::Job& submitted = job->record.job;
  if (errors.empty()) {
    const auto ask = AskOf(submitted, report);
    // Those that plan for cuda need not be those that have it.
    const bool here = submitted.plan_only() && submitted.device() != v1::Job::CUDA;
    const auto shortage = ask.ok() && here ? WhyNever(*ask, Offers()) : std::nullopt;
    if (!ask.ok()) {
      errors.emplace_back(ask.status().message());
    } else if (shortage && shortage->of_memory && submitted.memory().limit_bytes() == 0) {
      // As it would be if it were to run. With a limit of its own it may be meant for other machines.
      errors.push_back(absl::StrCat(shortage->reason, "; ", WhatWouldFit(*ask, Offers())));
      failure = v1::OUT_OF_MEMORY;
    } else if (shortage) {
      plan.add_notes(absl::StrCat("not on the workers known: ", shortage->reason));
    }
  }
  for (const std::string& note : plan.notes()) draft.Note(note);
  if (!errors.empty()) {
    draft.MoveTo(v1::REFUSED, absl::StrJoin(errors, "\n"), failure);
  } else if (submitted.plan_only()) {
    draft.MoveTo(v1::DONE, "planned").set_total_steps(report.total_steps());
  } else {
    if (plan.has_profile()) DropPicture(*plan.mutable_profile());
    const bool pause = std::exchange(draft.record.pause_wanted, false);
    draft.MoveTo(pause ? v1::PAUSED : v1::QUEUED, pause ? "planned, and paused" : "planned").set_total_steps(report.total_steps());
  }
  RETURN_IF_ERROR(Commit(*job, std::move(draft)));
  Schedule();
  return absl::OkStatus();
}

absl::StatusOr<v1::ProgressAck> Coordinator::ReportProgress(const v1::ProgressReport& report) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, FindRunning(report.job_id(), report.generation()));
  const uint64_t latest = job->latest ? job->latest->step() : 0;
  std::vector<v1::StepRecord> known;
  if (const uint64_t last = LastKnown(report, latest); last > 0 && report.steps(0).step() <= last) {
    ASSIGN_OR_RETURN(known, store_.ReadSteps(report.job_id(), report.steps(0).step(), last));
  }
  const auto news = NewEvents(report, known, latest, job->epochs.empty() ? 0 : job->epochs.back().epoch());
  if (absl::IsDataLoss(news.status())) {
    RETURN_IF_ERROR(End(*job, v1::FAILED, std::string(news.status().message()), v1::TRAINING_FAILED));
    Schedule();
    return absl::FailedPreconditionError(news.status().message());
  }
  RETURN_IF_ERROR(news.status());
  Draft draft(job->record);
  draft.events = *news;
  if (report.has_pass()) *draft.events.emplace_back().mutable_pass() = report.pass();
  AddNewNotes(*job, report, draft);
  if (report.total_steps() > 0) draft.record.total_steps = report.total_steps();
  if (!draft.events.empty() || draft.record.total_steps != job->record.total_steps) RETURN_IF_ERROR(Commit(*job, std::move(draft)));
  v1::ProgressAck ack;
  ack.set_durable_step(job->latest ? job->latest->step() : 0);
  return ack;
}

absl::Status Coordinator::ReportEnd(const v1::EndReport& report) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, Find(report.job_id()));
  if (!HasEnded(report.state()) && report.state() != v1::PAUSED) {
    return absl::InvalidArgumentError(absl::StrCat("a job does not end as ", v1::JobState_Name(report.state())));
  }
  // Made again after an answer that was lost.
  if (job->record.state == report.state() && job->record.generation == report.generation()) return absl::OkStatus();
  RETURN_IF_ERROR(FindRunning(report.job_id(), report.generation()).status());
  Draft draft(job->record);
  if (report.state() != v1::FAILED && report.state() != v1::PAUSED && report.has_result()) {
    draft.record.result = report.result();
    *draft.events.emplace_back().mutable_result() = report.result();
  }
  const v1::FailureKind failure = report.state() != v1::FAILED         ? v1::NO_FAILURE
                                  : report.failure() == v1::NO_FAILURE ? v1::TRAINING_FAILED
                                                                       : report.failure();
  std::string reason = report.reason();
  if (reason.empty() && report.state() == v1::DONE) reason = report.result().note().empty() ? "done" : report.result().note();
  if (reason.empty() && report.state() == v1::CANCELLED) reason = "cancelled";
  draft.record.pause_wanted = false;
  draft.MoveTo(report.state(), std::move(reason), failure).set_total_steps(draft.record.total_steps);
  RETURN_IF_ERROR(Commit(*job, std::move(draft)));
  Schedule();
  return absl::OkStatus();
}

absl::Status Coordinator::MayStore(const std::string& job_id, uint64_t generation) const {
  absl::MutexLock lock(&mutex_);
  return FindActive(job_id, generation).status();
}

absl::StatusOr<std::vector<ArtifactRecord>> Coordinator::StoreArtifact(const std::string& job_id, uint64_t generation,
                                                                       ArtifactRecord artifact) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, FindActive(job_id, generation));
  if (artifact.file.empty()) {
    if (!job->record.plan || job->record.plan->resolved().checkpoint().folder().empty() || !artifact.name.starts_with("checkpoint-")) {
      return absl::InvalidArgumentError(absl::StrCat("artifact ", artifact.name, " of job ", job_id,
                                                     ": only checkpoints are kept in a folder, and only where the job names one"));
    }
    artifact.file = absl::StrCat(job->record.plan->resolved().checkpoint().folder(), "/", job_id, "/", artifact.name);
  }
  const auto found = job->artifacts.find(artifact.name);
  std::vector<ArtifactRecord> replaced;
  if (found != job->artifacts.end() && found->second.file != artifact.file) replaced.push_back(found->second);
  Draft draft(job->record);
  if (job->record.plan && artifact.name.starts_with("checkpoint-")) {
    std::vector<std::string> names = job->Checkpoints();
    std::erase(names, artifact.name);
    const size_t others = std::max(job->record.plan->resolved().checkpoint().keep(), 1u) - 1;
    for (size_t i = others; i < names.size(); ++i) {
      draft.dropped_artifacts.push_back(names[i]);
      replaced.push_back(job->artifacts.at(names[i]));
    }
  }
  draft.artifact = std::move(artifact);
  RETURN_IF_ERROR(Commit(*job, std::move(draft)));
  return replaced;
}

}  // namespace lockstep
