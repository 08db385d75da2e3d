// Which job plans or trains where, now. The decisions themselves are pure functions (admission.h, scheduler.h).
#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/coordinator.h"
#include "coordinator/generation_secret.h"
#include "coordinator/membership.h"
#include "coordinator/scheduler.h"

namespace lockstep {
namespace {

using TrainerKey = std::tuple<std::string, uint64_t, uint32_t>;

// What is booked for a trainer of the job; 0 threads: as many as it can have.
uint64_t BytesOf(const JobRecord& job, bool plans, uint32_t threads, const Offer& offer) {
  if (plans) return offer.memory_bytes == 0 ? PlanningBytes(job.job) : std::min(PlanningBytes(job.job), offer.memory_bytes);
  if (!job.plan) return 0;
  const auto ask = AskOf(job.job, *job.plan);
  return ask.ok() ? ask->BytesWith(threads > 0 ? threads : ask->most_threads) : 0;
}

}  // namespace

// Trainers ordered and those that still run though they are not wanted. Planning that has been reported is about to end, and is in the way
// of nobody who needs its slot; its memory it has until then.
Offer Coordinator::OfferOf(const WorkerEntry& worker, const JobEntry* asking) const {
  Offer offer;
  offer.worker_id = worker.report.worker_id();
  offer.address = worker.report.address();
  offer.cores = std::max(worker.report.cores(), 1u);
  offer.slots = worker.report.slots();
  offer.memory_bytes = worker.report.memory_bytes();
  std::set<TrainerKey> keys, slots;
  const auto book = [&](const TrainerKey& key, bool has_slot, uint64_t bytes) {
    if (has_slot) slots.insert(key);
    if (keys.insert(key).second) offer.booked[std::get<0>(key)] += bytes;
  };
  for (const std::string& id : unended_) {
    const JobEntry& job = *jobs_.at(id);
    for (const MemberRecord& record : job.Processes()) {
      if (record.member.worker_id() != offer.worker_id) continue;
      if (&job == asking) ++offer.own;
      const bool plans = job.generation->record.role == v1::PLAN;
      book({id, record.process_generation, record.process_rank}, true, BytesOf(job.record, plans, record.threads, offer));
    }
  }
  for (const v1::TrainerReport& trainer : worker.report.trainers()) {
    const auto found = jobs_.find(trainer.job_id());
    if (trainer.ended()) continue;
    const bool plans = trainer.role() == v1::PLAN;
    book({trainer.job_id(), trainer.generation(), trainer.rank()}, !plans,
         found == jobs_.end() ? trainer.status().memory().resident_bytes() : BytesOf(found->second->record, plans, 0, offer));
  }
  offer.free_slots = offer.slots - std::min(offer.slots, static_cast<uint32_t>(slots.size()));
  return offer;
}

std::vector<Offer> Coordinator::Offers(const JobEntry* asking) const {
  std::vector<Offer> offers;
  for (const auto& [id, worker] : workers_) {
    if (worker->stream != 0 && worker->reports > 0 && !worker->lost) offers.push_back(OfferOf(*worker, asking));
  }
  return offers;
}

bool Coordinator::StillReported(const JobEntry& job) const {
  for (const auto& [id, worker] : workers_) {
    if (worker->lost || worker->stream == 0) continue;
    for (const v1::TrainerReport& trainer : worker->report.trainers()) {
      if (trainer.job_id() == job.record.id && !trainer.ended() && trainer.role() != v1::PLAN) return true;
    }
  }
  return false;
}

absl::Status Coordinator::SetReason(JobEntry& job, const std::string& reason) {
  if (job.record.reason == reason) return absl::OkStatus();
  Draft draft(job.record);
  draft.MoveTo(job.record.state, reason).set_total_steps(job.record.total_steps);
  return Commit(job, std::move(draft));
}

void Coordinator::Schedule() {
  bool blocked = false, waiting = false;
  for (const std::string& id : std::set<std::string>(unended_)) {
    JobEntry& job = *jobs_.at(id);
    absl::Status status;
    if (job.record.state == v1::SUBMITTED) status = TryPlan(job);
    if (job.record.state == v1::QUEUED && !blocked) {
      const absl::StatusOr<bool> waits = TryRun(job);
      status = waits.status();
      blocked = waits.ok() && *waits;
    } else if (job.record.state == v1::QUEUED) {
      status = SetReason(job, "queued: waiting for the jobs before it");
    }
    if (job.record.state == v1::SUBMITTED || job.record.state == v1::QUEUED) waiting = true;
    // The store logs what poisons it.
    if (!status.ok() && !absl::IsUnavailable(status)) LOG_ERROR("job=%s error=\"%s\"", id, status.ToString());
  }
  for (const std::string& id : std::set<std::string>(unended_)) {
    // What runs gets more only of what nobody waits for, unless it cannot go on without.
    JobEntry& job = *jobs_.at(id);
    const absl::Status status = Grow(job, !waiting || (job.Active() && job.generation->record.waits));
    if (!status.ok() && !absl::IsUnavailable(status)) LOG_ERROR("job=%s error=\"%s\"", id, status.ToString());
  }
}

absl::Status Coordinator::TryPlan(JobEntry& job) {
  if (clock_.Now() < job.not_before) return absl::OkStatus();
  const std::vector<Offer> offers = Offers();
  const auto [best, reason] = PlacePlanning(PlanningBytes(job.record.job), offers);
  if (best == nullptr) return SetReason(job, reason);
  GenerationRecord generation;
  ASSIGN_OR_RETURN(generation.secret, MakeSecret());
  generation.number = job.record.next_generation;
  generation.role = v1::PLAN;
  generation.created_unix_ms = NowMs();
  MemberRecord& member = generation.members.emplace_back();
  member.member.set_worker_id(best->worker_id);
  member.member.set_address(best->address);
  member.member.set_virtual_replica_count(job.record.job.virtual_replicas());
  // As many as a replica will get at most: those that run are spread over the workers.
  const auto workers = static_cast<uint32_t>(offers.size());
  const uint32_t here = (std::max(job.record.job.replicas().min(), 1u) + workers - 1) / workers;
  const uint32_t fixed = job.record.job.replicas().threads();
  member.threads = fixed > 0 ? fixed : std::max(best->cores / here, 1u);
  member.process_generation = generation.number;
  Draft draft(job.record);
  ++draft.record.next_generation;
  draft.generation = std::move(generation);
  draft.MoveTo(v1::PLANNING, absl::StrCat("planning on worker ", best->worker_id));
  return Commit(job, std::move(draft));
}

absl::StatusOr<bool> Coordinator::WaitOrRefuse(JobEntry& job, const Ask& ask, const std::vector<Offer>& offers, const std::string& reason) {
  const std::optional<Shortage> shortage = WhyNever(ask, offers);
  const bool all_present = std::all_of(workers_.begin(), workers_.end(), [](const auto& entry) {
    return entry.second->lost || (entry.second->stream != 0 && entry.second->reports > 0);
  });
  // One that has trained fitted once, and waits for such workers.
  if (shortage && shortage->of_memory && all_present && job.record.generation == 0) {
    RETURN_IF_ERROR(End(job, v1::REFUSED, absl::StrCat(shortage->reason, "; ", WhatWouldFit(ask, offers)), v1::OUT_OF_MEMORY));
    return false;
  }
  RETURN_IF_ERROR(SetReason(job, absl::StrCat("queued: ", reason)));
  return !shortage.has_value();
}

absl::StatusOr<bool> Coordinator::TryRun(JobEntry& job) {
  // What is left of its last generation ends first; only then can its processes not wake and speak up again.
  if (clock_.Now() < job.not_before || StillReported(job)) return true;
  ASSIGN_OR_RETURN(const Ask ask, AskFor(job));
  const std::vector<Offer> offers = Offers();
  Decision decision = Place(ask, offers);
  if (decision.members.empty()) return WaitOrRefuse(job, ask, offers, decision.reason);
  GenerationRecord generation;
  ASSIGN_OR_RETURN(generation.secret, MakeSecret());
  generation.number = job.record.next_generation;
  generation.created_unix_ms = NowMs();
  generation.members = std::move(decision.members);
  for (MemberRecord& member : generation.members) {
    member.process_generation = generation.number;
    member.process_rank = member.member.rank();
  }
  const auto replicas = static_cast<uint32_t>(generation.members.size());
  Draft draft(job.record);
  draft.record.generation = generation.number;
  ++draft.record.next_generation;
  if (draft.record.started_unix_ms == 0) draft.record.started_unix_ms = NowMs();
  draft.generation = std::move(generation);
  v1::StateChange& change = draft.MoveTo(v1::RUNNING, std::move(decision.reason));
  change.set_total_steps(job.record.total_steps);
  change.set_replicas(replicas);
  RETURN_IF_ERROR(Commit(job, std::move(draft)));
  // A single rank has nobody to meet.
  if (replicas > 1) job.generation->awaited_since = clock_.Now();
  return false;
}

}  // namespace lockstep
