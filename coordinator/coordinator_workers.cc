// Workers: their streams, what they report, and what they are told to run.
#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/coordinator.h"

namespace lockstep {
namespace {

// A lost worker is remembered for so long, so that people see what became of it.
constexpr absl::Duration kRemembered = absl::Hours(1);

std::string HowItEnded(const v1::TrainerReport& report, uint32_t rank, const std::string& worker) {
  const std::string who = report.role() == v1::PLAN ? absl::StrCat("the planning trainer on worker ", worker)
                                                    : absl::StrCat("the trainer of rank ", rank, " on worker ", worker);
  const std::string how = report.signal() != 0 ? absl::StrCat(" was killed by signal ", report.signal())
                                               : absl::StrCat(" ended with status ", report.exit_code());
  return absl::StrCat(who, how, report.message().empty() ? "" : ": ", report.message());
}

}  // namespace

absl::StatusOr<uint64_t> Coordinator::Attach(const v1::WorkerReport& first) {
  absl::MutexLock lock(&mutex_);
  const std::string& id = first.worker_id();
  if (id.empty()) return absl::InvalidArgumentError("worker_id: is missing");
  if (first.version() != options_.version) {
    return absl::FailedPreconditionError(absl::StrCat("worker ", id, " on ", first.host(), " is of version ", first.version(),
                                                      ", this coordinator of version ", options_.version, "; install the same on both"));
  }
  std::unique_ptr<WorkerEntry>& worker = workers_[id];
  if (worker == nullptr) worker = std::make_unique<WorkerEntry>();
  // A process that reconnects counts on; its old stream may not have noticed yet.
  const bool same_process = first.host() == worker->report.host() && first.sequence() > worker->report.sequence();
  if (worker->stream != 0 && !same_process) {
    return absl::FailedPreconditionError(absl::StrCat("worker id ", id, " is in use by a live worker on ", worker->report.host(),
                                                      "; give this one a state folder of its own, or wait until that one has ended"));
  }
  if (!same_process) {
    worker->report = first;
    worker->report.clear_logs();
    worker->report.clear_trainers();
    worker->report.set_sequence(0);
  }
  worker->stream = ++last_stream_;
  // What it says now counts, once it is taken in.
  worker->reports = 0;
  worker->lost = false;
  worker->last_seen = clock_.Now();
  ++decisions_;
  LOG_INFO("worker=%s host=%s slots=%d cores=%d address=%s event=attached", id, first.host(), first.slots(), first.cores(),
           first.address());
  return worker->stream;
}

WorkerEntry* Coordinator::FindStream(uint64_t stream) const {
  for (const auto& [id, worker] : workers_) {
    if (worker->stream == stream) return worker.get();
  }
  return nullptr;
}

absl::Status Coordinator::Report(uint64_t stream, const v1::WorkerReport& report) {
  absl::MutexLock lock(&mutex_);
  WorkerEntry* worker = FindStream(stream);
  if (worker == nullptr) return absl::AbortedError("the worker was taken for lost, or speaks through another stream; attend again");
  if (report.worker_id() != worker->report.worker_id()) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker_id: is ", report.worker_id(), " in the stream of worker ", worker->report.worker_id()));
  }
  worker->last_seen = clock_.Now();
  // Only a report that was made durable as a whole is taken in; the worker sends what it said again with the next one.
  v1::WorkerReport before = report;
  before.clear_logs();
  std::swap(worker->report, before);
  if (absl::Status status = TakeTrainers(*worker); !status.ok()) {
    worker->report.set_sequence(before.sequence());
    return status;
  }
  ++worker->reports;
  if (report.leaving()) {
    RETURN_IF_ERROR(Lose(*worker, absl::StrCat("worker ", report.worker_id(), " left")));
    LOG_INFO("worker=%s event=left", report.worker_id());
    // Its stream answers this report, and then ends.
    worker->lost = true;
  }
  Schedule();
  return absl::OkStatus();
}

absl::Status Coordinator::TakeTrainers(WorkerEntry& worker) {
  for (const v1::TrainerReport& report : worker.report.trainers()) {
    const auto found = jobs_.find(report.job_id());
    if (found == jobs_.end() || !found->second->Active()) continue;
    Generation& generation = *found->second->generation;
    // Of another generation: it is in no orders, and will be stopped.
    const auto rank = generation.RankOf(report.generation(), report.rank());
    if (!rank) continue;
    Trainer& trainer = generation.trainers[*rank];
    trainer.started = true;
    trainer.pid = report.pid();
    if (report.has_status()) trainer.status = report.status();
    if (!report.status().in_hand().empty()) found->second->in_hand = report.status().in_hand();
  }
  TakeJoiners(worker);
  // Killed ones first: what the others say is then mostly that a peer is gone.
  RETURN_IF_ERROR(TakeKilled(worker));
  RETURN_IF_ERROR(TakeEnded(worker));
  return TakeMissing(worker);
}

absl::Status Coordinator::TakeKilled(const WorkerEntry& worker) {
  std::map<JobEntry*, std::pair<std::set<uint32_t>, std::string>> killed;
  for (const v1::TrainerReport& report : worker.report.trainers()) {
    const auto found = jobs_.find(report.job_id());
    if (found == jobs_.end() || !found->second->Active() || !report.ended() || report.signal() == 0) continue;
    const Generation& generation = *found->second->generation;
    const auto rank = generation.RankOf(report.generation(), report.rank());
    if (!rank || generation.trainers[*rank].ended) continue;
    auto& [ranks, cause] = killed[found->second.get()];
    ranks.insert(*rank);
    if (cause.empty()) cause = HowItEnded(report, *rank, worker.report.worker_id());
  }
  for (const auto& [job, lost] : killed) RETURN_IF_ERROR(LoseRanks(*job, lost.first, lost.second));
  return absl::OkStatus();
}

absl::Status Coordinator::TakeEnded(const WorkerEntry& worker) {
  for (const v1::TrainerReport& report : worker.report.trainers()) {
    const auto found = jobs_.find(report.job_id());
    if (found == jobs_.end() || !found->second->Active() || !report.ended()) continue;
    JobEntry& job = *found->second;
    const auto rank = job.generation->RankOf(report.generation(), report.rank());
    if (!rank || job.generation->trainers[*rank].ended) continue;
    const std::string how = HowItEnded(report, *rank, worker.report.worker_id());
    const v1::Job::Kind kind = job.record.job.kind();
    const bool passes = kind == v1::Job::EVALUATE || kind == v1::Job::PREDICT;
    // Of a pass that trains nothing rank 0 alone stays to the end.
    if (*rank != 0 && passes && report.exit_code() == 0) {
      job.generation->trainers[*rank].ended = true;
      ++decisions_;
      continue;
    }
    RETURN_IF_ERROR(job.record.state == v1::PLANNING ? Break(job, how) : LoseRanks(job, {*rank}, how));
  }
  return absl::OkStatus();
}

void Coordinator::TakeJoiners(const WorkerEntry& worker) {
  const std::string& worker_id = worker.report.worker_id();
  std::set<std::tuple<std::string, uint64_t, uint32_t>> listed;
  for (const v1::TrainerReport& report : worker.report.trainers()) {
    const auto found = jobs_.find(report.job_id());
    if (found == jobs_.end()) continue;
    JobEntry& job = *found->second;
    listed.emplace(report.job_id(), report.generation(), report.rank());
    if (report.ended()) {
      std::erase_if(job.retired, [&](const MemberRecord& record) {
        return record.process_generation == report.generation() && record.process_rank == report.rank();
      });
    }
    Joiner* joiner = job.FindJoiner(report.generation(), report.rank());
    if (joiner == nullptr) continue;
    joiner->seat.trainer.started = true;
    joiner->seat.trainer.pid = report.pid();
    if (report.has_status()) joiner->seat.trainer.status = report.status();
    if (report.ended()) LoseJoiner(job, MemberRecord(joiner->seat.record), HowItEnded(report, 0, worker_id));
  }
  for (const std::string& id : unended_) {
    JobEntry& job = *jobs_.at(id);
    for (const Joiner& joiner : std::vector<Joiner>(job.joiners)) {
      const MemberRecord& record = joiner.seat.record;
      if (record.member.worker_id() != worker_id || !joiner.seat.trainer.started) continue;
      if (!listed.contains({id, record.process_generation, record.process_rank})) LoseJoiner(job, record, "its worker does not run it");
    }
  }
}

absl::Status Coordinator::TakeMissing(const WorkerEntry& worker) {
  const std::string& worker_id = worker.report.worker_id();
  std::set<std::tuple<std::string, uint64_t, uint32_t>> listed;
  for (const v1::TrainerReport& report : worker.report.trainers()) listed.emplace(report.job_id(), report.generation(), report.rank());
  for (const std::string& id : std::set<std::string>(unended_)) {
    JobEntry& job = *jobs_.at(id);
    if (!job.Active()) continue;
    std::set<uint32_t> missing;
    for (const MemberRecord& record : job.generation->record.members) {
      const Trainer& trainer = job.generation->trainers[record.member.rank()];
      if (record.member.worker_id() != worker_id || !trainer.started || trainer.ended) continue;
      if (!listed.contains({id, record.process_generation, record.process_rank})) missing.insert(record.member.rank());
    }
    if (missing.empty()) continue;
    RETURN_IF_ERROR(
        LoseRanks(job, missing, absl::StrCat("worker ", worker_id, " does not run the trainer of rank ", *missing.begin(), " any more")));
  }
  return absl::OkStatus();
}

void Coordinator::Detach(uint64_t stream) {
  absl::MutexLock lock(&mutex_);
  WorkerEntry* worker = FindStream(stream);
  if (worker == nullptr) return;
  worker->stream = 0;
  LOG_INFO("worker=%s event=detached", worker->report.worker_id());
  if (worker->report.leaving()) workers_.erase(std::string(worker->report.worker_id()));
}

absl::Status Coordinator::Lose(const WorkerEntry& worker, const std::string& cause) {
  for (const std::string& id : std::set<std::string>(unended_)) {
    JobEntry& job = *jobs_.at(id);
    if (!job.Active()) continue;
    std::set<uint32_t> lost;
    for (const MemberRecord& record : job.generation->record.members) {
      const bool here = record.member.worker_id() == worker.report.worker_id();
      if (here && !job.generation->trainers[record.member.rank()].ended) lost.insert(record.member.rank());
    }
    const std::string& worker_id = worker.report.worker_id();
    for (const Joiner& joiner : std::vector<Joiner>(job.joiners)) {
      if (joiner.seat.record.member.worker_id() == worker_id) LoseJoiner(job, joiner.seat.record, cause);
    }
    std::erase_if(job.retired, [&](const MemberRecord& record) { return record.member.worker_id() == worker_id; });
    if (!lost.empty()) RETURN_IF_ERROR(LoseRanks(job, std::move(lost), cause));
  }
  ++decisions_;
  return absl::OkStatus();
}

v1::TrainerOrder Coordinator::OrderFor(const JobEntry& job, const MemberRecord& member) const {
  const GenerationRecord& generation = job.generation->record;
  v1::TrainerOrder order;
  order.set_job_id(job.record.id);
  order.set_generation(generation.number);
  order.set_rank(member.member.rank());
  order.set_role(generation.role);
  *order.mutable_job() = generation.role == v1::PLAN ? job.record.job : job.record.plan->resolved();
  for (const MemberRecord& record : generation.members) *order.add_members() = record.member;
  order.set_threads(member.threads);
  order.set_cancel(job.record.cancel_wanted);
  order.set_pause(job.record.pause_wanted);
  for (std::string& name : job.Checkpoints()) order.add_checkpoints(std::move(name));
  order.set_joins(member.process_generation != generation.number);
  order.set_newest_generation(generation.number);
  order.set_silence_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.silence)));
  order.set_generation_secret(generation.secret);
  for (const auto& [id, worker] : workers_) {
    if (generation.role != v1::PLAN || worker->lost || worker->stream == 0) continue;
    order.set_memory_bytes(std::max(order.memory_bytes(), worker->report.memory_bytes()));
  }
  for (const char* index : {"train.index", "validation.index"}) {
    if (generation.role == v1::TRAIN && job.artifacts.count(index) > 0) order.add_artifacts(index);
  }
  return order;
}

v1::WorkerOrders Coordinator::OrdersFor(const WorkerEntry& worker) const {
  v1::WorkerOrders orders;
  orders.set_heartbeat_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.heartbeat)));
  orders.set_silence_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options_.silence)));
  orders.set_acknowledged_sequence(worker.report.sequence());
  for (const std::string& id : unended_) {
    const JobEntry& job = *jobs_.at(id);
    if (!job.Active()) continue;
    for (const MemberRecord& mine : job.Processes()) {
      if (mine.member.worker_id() != worker.report.worker_id()) continue;
      v1::TrainerOrder& order = *orders.add_trainers();
      order = OrderFor(job, mine);
      // To the worker it is the process that it was when it was started.
      order.set_generation(mine.process_generation);
      order.set_rank(mine.process_rank);
    }
  }
  return orders;
}

absl::StatusOr<std::optional<Coordinator::Orders>> Coordinator::NextOrders(uint64_t stream, uint64_t version, absl::Duration wait) const {
  absl::MutexLock lock(&mutex_);
  const auto changed = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    const WorkerEntry* worker = FindStream(stream);
    return stopping_ || worker == nullptr || (worker->reports > 0 && worker->reports + decisions_ != version);
  };
  const bool news = mutex_.AwaitWithTimeout(absl::Condition(&changed), wait);
  if (stopping_) return absl::UnavailableError("the coordinator stops");
  const WorkerEntry* worker = FindStream(stream);
  if (worker == nullptr) return absl::AbortedError("the worker was taken for lost, or speaks through another stream; attend again");
  if (!news) return std::nullopt;
  return Orders{OrdersFor(*worker), worker->reports + decisions_};
}

std::vector<v1::WorkerStatus> Coordinator::Workers() const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::WorkerStatus> statuses;
  for (const auto& [id, worker] : workers_) statuses.push_back(StatusOf(*worker));
  return statuses;
}

v1::WorkerStatus Coordinator::StatusOf(const WorkerEntry& worker) const {
  v1::WorkerStatus status;
  const v1::WorkerReport& report = worker.report;
  status.set_worker_id(report.worker_id());
  status.set_host(report.host());
  status.set_cores(report.cores());
  status.set_memory_bytes(report.memory_bytes());
  for (const v1::TrainerReport& trainer : report.trainers()) {
    if (!trainer.ended() && !worker.lost) status.add_trainers(trainer.job_id());
  }
  status.set_state(worker.lost ? "lost" : "connected");
  status.set_last_seen_unix_ms(absl::ToUnixMillis(worker.last_seen));
  status.set_version(report.version());
  status.set_free_slots(worker.lost || worker.stream == 0 ? 0 : OfferOf(worker, nullptr).free_slots);
  return status;
}

void Coordinator::ForgiveSilence(absl::Time now) {
  const absl::Duration since = now - std::exchange(last_tick_, now);
  if (since >= absl::ZeroDuration() && since <= options_.lease / 2) return;
  LOG_WARNING("event=away seconds=%.1f action=\"leases begin anew\"", absl::ToDoubleSeconds(since));
  for (const auto& [id, worker] : workers_) {
    if (!worker->lost) worker->last_seen = now;
  }
}

void Coordinator::Tick() {
  absl::MutexLock lock(&mutex_);
  const absl::Time now = clock_.Now();
  ForgiveSilence(now);
  for (auto at = workers_.begin(); at != workers_.end();) {
    WorkerEntry& worker = *at->second;
    if (!worker.lost && now - worker.last_seen > options_.lease) {
      const std::string cause = absl::StrCat("worker ", at->first, " was not heard of for ", absl::FormatDuration(options_.lease));
      if (Lose(worker, cause).ok()) {
        LOG_WARNING("worker=%s event=lost reason=\"%s\"", at->first, cause);
        worker.lost = true;
        worker.stream = 0;
      }
    }
    at = worker.lost && worker.stream == 0 && now - worker.last_seen > kRemembered ? workers_.erase(at) : std::next(at);
  }
  for (const std::string& id : std::set<std::string>(unended_)) {
    JobEntry& job = *jobs_.at(id);
    if (!job.Active()) continue;
    if (now - job.cancel_since > options_.cancel_timeout) {
      End(job, v1::CANCELLED, "cancelled; its trainers did not come to a step boundary in time, and were stopped", v1::NO_FAILURE)
          .IgnoreError();
    } else if (now - job.generation->awaited_since > options_.rendezvous_timeout) {
      const std::set<uint32_t> missing = job.generation->meeting.MissingRanks();
      LoseRanks(job, missing,
                absl::StrCat(missing.size() == 1 ? "rank " : "ranks ", absl::StrJoin(missing, ", "),
                             " did not come to the rendezvous within ", absl::FormatDuration(options_.rendezvous_timeout)))
          .IgnoreError();
    } else if (job.generation->asked_since != absl::InfiniteFuture()) {
      WatchBroken(job).IgnoreError();
    }
  }
  Schedule();
}

}  // namespace lockstep
