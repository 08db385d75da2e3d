#include "tests/simulation/world.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/failpoint.h"
#include "coordinator/testing_cluster.h"

namespace lockstep::simulation {
namespace {

constexpr size_t kMostTrace = 4'000;
constexpr int kEvents = 160;
// In calm weather every job has ended after so many further events.
constexpr int kMostCalmEvents = 6'000;
constexpr size_t kMostJobs = 3;

std::string Name(const TrainerKey& key) {
  return absl::StrCat(key.job_id.substr(key.job_id.size() - 3), "/", key.generation, ".", key.rank);
}

}  // namespace

World::World(uint64_t seed, std::string folder, Tally& tally) : random_(seed), folder_(std::move(folder)), tally_(tally) {
  options_.version = kTestVersion;
  options_.rendezvous_timeout = absl::Minutes(1);
  const uint64_t workers = 1 + Random(3);
  for (uint64_t i = 0; i < workers; ++i) {
    Worker& worker = workers_.emplace_back();
    worker.id = absl::StrCat("w", i);
    worker.slots = static_cast<uint32_t>(1 + Random(3));
  }
  Restart();
}

void World::Trace(std::string text) {
  trace_.push_back(absl::StrCat(absl::FormatTime("%H:%M:%E1S ", clock_.Now(), absl::UTCTimeZone()), text));
  if (trace_.size() > kMostTrace) trace_.pop_front();
}

void World::Restart() {
  const std::string before = coordinator_ == nullptr ? "" : DurableState(*coordinator_);
  coordinator_.reset();
  store_.reset();
  SetFailpoint("coordinator.full_disk", "");
  auto store = Store::Open(folder_ + "/store.sqlite");
  if (!store.ok()) return oracle_.Breach(store.status().ToString());
  store_ = std::move(*store);
  auto coordinator = Coordinator::Create(options_, *store_, clock_);
  if (!coordinator.ok()) return oracle_.Breach(coordinator.status().ToString());
  coordinator_ = std::move(*coordinator);
  if (!before.empty() && DurableState(*coordinator_) != before)
    oracle_.Breach("a restarted coordinator does not know what the last one did");
  for (Worker& worker : workers_) worker.stream = 0;
}

bool World::Lives(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return true;
  Trace("the coordinator can make nothing durable any more, and is restarted");
  Restart();
  return false;
}

World::Worker* World::WorkerOf(const Trainer& trainer) {
  for (Worker& worker : workers_) {
    if (worker.id == trainer.worker) return &worker;
  }
  return nullptr;
}

void World::Client() {
  if (requests_.size() < kMostJobs && Chance(40)) {
    v1::Job job = SmallJob();
    job.set_virtual_replicas(static_cast<uint32_t>(1 + Random(5)));
    job.set_batch(job.virtual_replicas() * 4);
    job.set_steps(3 + Random(6));
    const auto max = static_cast<uint32_t>(1 + Random(std::min<uint64_t>(4, job.virtual_replicas())));
    job.mutable_replicas()->set_max(max);
    job.mutable_replicas()->set_min(Chance(30) ? std::min(max, 2u) : 1);
    requests_[absl::StrCat("r", requests_.size())] = {"", job};
  }
  if (requests_.empty()) return;
  auto at = requests_.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(Random(requests_.size())));
  auto& [request, submission] = *at;
  auto& [id, job] = submission;
  if (id.empty() || Chance(20)) {
    const auto submitted = coordinator_->Submit(coordinator_->NewJobId(), request, job, ModelOf(job));
    if (!Lives(submitted.status())) return;
    if (!submitted.ok()) return oracle_.Breach(absl::StrCat("a good job was refused: ", submitted.status().ToString()));
    if (!id.empty() && id != *submitted) return oracle_.Breach("one submission became two jobs");
    oracle_.Submitted(*submitted, job);
    if (Chance(20)) return;  // the answer is lost
    id = *submitted;
    Trace(absl::StrCat("submit ", id, " min ", job.replicas().min(), " max ", job.replicas().max()));
    return;
  }
  const uint64_t what = Random(100);
  absl::Status status;
  if (what < 4) status = coordinator_->Cancel(id).status(), Trace("cancel " + id);
  if (what >= 4 && what < 12) status = coordinator_->Pause(id).status(), Trace("pause " + id);
  if (what >= 12 && what < 30) status = coordinator_->Resume(id).status(), Trace("resume " + id);
  if (what >= 30 && what < 45) {
    v1::Replicas wanted;
    wanted.set_min(1);
    wanted.set_max(static_cast<uint32_t>(1 + Random(4)));
    status = coordinator_->Scale(id, wanted).status();
    oracle_.Scaled(id, 1);
    Trace(absl::StrCat("scale ", id, " to ", wanted.max()));
  }
  Lives(status);
}

void World::Report(Worker& worker, bool faults) {
  if (!worker.up) return;
  v1::WorkerReport report;
  report.set_worker_id(worker.id);
  report.set_version(kTestVersion);
  report.set_host("host-" + worker.id);
  report.set_cores(4);
  report.set_slots(worker.slots);
  report.set_memory_bytes(uint64_t{8} << 30);
  report.set_sequence(++worker.sequence);
  for (const auto& trainer : trainers_) {
    const auto known = worker.actual.find(trainer->key);
    if (trainer->worker != worker.id || known == worker.actual.end()) continue;
    if (trainer->state == State::kEnded && known->second.acknowledged) continue;
    v1::TrainerReport& one = *report.add_trainers();
    one.set_job_id(trainer->key.job_id);
    one.set_generation(trainer->key.generation);
    one.set_rank(trainer->key.rank);
    one.set_role(trainer->key.role);
    one.set_ended(trainer->state == State::kEnded);
    one.set_exit_code(trainer->exit_code);
    one.set_signal(trainer->signal);
  }
  if (worker.stream == 0) {
    const auto stream = coordinator_->Attach(report);
    if (!stream.ok()) return;
    worker.stream = *stream;
  }
  const absl::Status status = coordinator_->Report(worker.stream, report);
  if (!Lives(status)) return;
  if (!status.ok()) {
    worker.stream = 0;
    return;
  }
  if (faults && Chance(10)) return;  // the answer is lost; the stream, too
  for (const v1::TrainerReport& one : report.trainers()) {
    if (!one.ended()) continue;
    const TrainerKey key{one.job_id(), one.generation(), one.role(), one.rank()};
    worker.actual.at(key).acknowledged = true;
  }
  const auto orders = coordinator_->NextOrders(worker.stream, 0, absl::ZeroDuration());
  if (!orders.ok() || !*orders) return;
  oracle_.Ordered(worker.id, worker.slots, (*orders)->orders);
  if (faults && Chance(10)) return;
  worker.wanted.clear();
  for (const v1::TrainerOrder& order : (*orders)->orders.trainers()) worker.wanted[KeyOf(order)] = order;
  Obey(worker);
}

void World::Obey(Worker& worker) {
  std::vector<WantedTrainer> wanted;
  for (const auto& [key, order] : worker.wanted) wanted.push_back({key, {order.cancel(), order.pause(), order.newest_generation()}});
  std::vector<ActualTrainer> actual;
  for (auto& [key, one] : worker.actual) {
    if (worker.wanted.contains(key)) one.unwanted_since.reset();
    if (!worker.wanted.contains(key) && !one.unwanted_since) one.unwanted_since = clock_.Now();
    actual.push_back(one);
  }
  const auto find = [&](const TrainerKey& key) {
    return std::find_if(trainers_.begin(), trainers_.end(), [&](const auto& one) { return one->key == key && one->worker == worker.id; });
  };
  const Reconciliation todo = Reconcile(wanted, actual, clock_.Now(), {});
  for (const auto* stopped : {&todo.terminate, &todo.kill}) {
    for (const TrainerKey& key : *stopped) {
      if (const auto at = find(key); at != trainers_.end()) Die(**at, 15);
    }
  }
  for (const TrainerKey& key : todo.forget) worker.actual.erase(key);
  for (const TrainerKey& key : todo.start) {
    worker.actual[key].key = key;
    auto trainer = std::make_unique<Trainer>();
    trainer->key = key;
    trainer->worker = worker.id;
    trainer->order = worker.wanted.at(key);
    trainer->state = key.role == v1::PLAN ? State::kPlanning : State::kLoading;
    trainer->newest = trainer->order.newest_generation();
    trainer->total = trainer->order.job().steps();
    Trace(absl::StrCat(worker.id, " starts ", Name(key), trainer->order.joins() ? ", which joins" : ""));
    trainers_.push_back(std::move(trainer));
  }
  for (const auto& [key, order] : worker.wanted) {
    const auto at = find(key);
    if (at == trainers_.end()) continue;
    (*at)->cancel = order.cancel();
    (*at)->pause = order.pause();
    (*at)->newest = std::max((*at)->newest, order.newest_generation());
  }
}

void World::Die(Trainer& trainer, int signal) {
  if (trainer.state == State::kEnded) return;
  Trace(absl::StrCat(Name(trainer.key), " dies of ", signal));
  trainer.state = State::kEnded;
  trainer.signal = signal;
  if (Worker* worker = WorkerOf(trainer)) worker->actual[trainer.key].ended = true;
}

World::Trainer* World::Pick() {
  std::vector<Trainer*> living;
  for (const auto& trainer : trainers_) {
    if (trainer->state != State::kEnded) living.push_back(trainer.get());
  }
  return living.empty() ? nullptr : living[Random(living.size())];
}

void World::Fault() {
  const uint64_t what = Random(100);
  if (what < 15) {
    ++tally_.coordinator_crashes;
    Trace("the coordinator dies");
    Restart();
  } else if (what < 22) {
    ++tally_.full_disks;
    Trace("the disk is full from some write on");
    SetFailpoint("coordinator.full_disk", absl::StrCat("error@", 1 + Random(4)));
  } else if (what < 32) {
    Worker& worker = workers_[Random(workers_.size())];
    Trace(absl::StrCat(worker.id, worker.up ? " dies with its trainers" : " is there again"));
    if (worker.up) ++tally_.worker_crashes;
    worker.up = !worker.up;
    if (worker.up) return;
    std::erase_if(trainers_, [&](const auto& trainer) { return trainer->worker == worker.id; });
    coordinator_->Detach(worker.stream);
    worker.stream = worker.sequence = 0;
    worker.actual.clear();
    worker.wanted.clear();
  } else if (what < 40) {
    Worker& worker = workers_[Random(workers_.size())];
    Trace(absl::StrCat("the line to ", worker.id, " breaks"));
    if (Chance(50)) coordinator_->Detach(worker.stream);
    worker.stream = 0;
  } else if (what < 75) {
    if (Trainer* trainer = Pick(); trainer != nullptr) {
      ++tally_.trainer_deaths;
      Die(*trainer, 9);
    }
  } else if (what < 85) {
    if (Trainer* trainer = Pick(); trainer != nullptr) {
      ++tally_.trainer_deaths;
      Die(*trainer, 0);
      trainer->exit_code = 1;
    }
  } else {
    const absl::Duration jump = Chance(10) ? absl::Hours(1) : absl::Seconds(static_cast<int64_t>(Random(15)));
    Trace(absl::StrCat("time passes at once: ", absl::FormatDuration(jump)));
    clock_.Advance(jump);
    coordinator_->Tick();
  }
}

void World::Plan(Trainer& trainer) {
  const absl::Status status = coordinator_->ReportPlan(PlanOf(trainer.key.job_id, trainer.order.job()));
  if (!Lives(status)) return;
  if (Chance(20)) return;  // the answer is lost, and it is made again
  Trace(absl::StrCat(Name(trainer.key), " planned: ", status.ok() ? "ok" : "refused"));
  trainer.state = State::kEnded;
  WorkerOf(trainer)->actual[trainer.key].ended = true;
}

void World::TakePlace(Trainer& trainer, const v1::TrainerOrder& order) {
  // A joiner of a job whose others have done them all is one, too.
  const bool done = trainer.state == State::kFinished || trainer.state == State::kConcluding ||
                    std::any_of(trainers_.begin(), trainers_.end(), [&](const auto& one) {
                      return one->key.job_id == trainer.key.job_id && one->step >= one->total && one->key.role == v1::TRAIN;
                    });
  oracle_.Placed(order, done);
  if (order.generation() <= trainer.order.generation() && trainer.order.generation() != trainer.key.generation) {
    oracle_.Breach(absl::StrCat(Name(trainer.key), " was sent back to generation ", order.generation()));
  }
  trainer.order = order;
  trainer.equal = false;
  trainer.newest = std::max(trainer.newest, order.generation());
  trainer.state = order.members_size() == 1 ? State::kTraining : State::kMeeting;
}

void World::Ask(Trainer& trainer, bool finished) {
  v1::RegroupRequest request;
  request.set_job_id(trainer.key.job_id);
  request.set_generation(trainer.order.generation());
  request.set_process_generation(trainer.key.generation);
  request.set_process_rank(trainer.key.rank);
  request.set_finished(finished);
  request.set_reason("a peer is gone");
  const auto order = coordinator_->Regroup(request, absl::ZeroDuration());
  if (!Lives(order.status())) return;
  if (order.ok() && *order) {
    Trace(absl::StrCat(Name(trainer.key), " is rank ", (*order)->rank(), " of generation ", (*order)->generation()));
    return TakePlace(trainer, **order);
  }
  if (!absl::IsFailedPrecondition(order.status())) return;
  Trace(absl::StrCat(Name(trainer.key), " has no place, and ends"));
  trainer.state = State::kEnded;
  WorkerOf(trainer)->actual[trainer.key].ended = true;
}

void World::Meet(Trainer& trainer) {
  if (trainer.newest > trainer.order.generation()) {
    trainer.state = State::kAsking;
    return;
  }
  v1::RendezvousRequest request;
  request.set_job_id(trainer.key.job_id);
  request.set_generation(trainer.order.generation());
  request.set_rank(trainer.order.rank());
  request.mutable_endpoint()->set_address(absl::StrCat(trainer.worker, ":", trainer.key.generation, ":", trainer.key.rank));
  const auto met = coordinator_->Rendezvous(request, absl::ZeroDuration());
  if (!Lives(met.status())) return;
  if (met.ok() && !*met) return;
  if (met.ok()) oracle_.Believed(trainer.key.job_id, trainer.order.generation(), "a rendezvous");
  trainer.state = met.ok() ? State::kTraining : State::kAsking;
}

std::vector<World::Trainer*> World::Gang(const Trainer& trainer) {
  std::vector<Trainer*> gang(static_cast<size_t>(trainer.order.members_size()), nullptr);
  for (const auto& one : trainers_) {
    if (one->key.job_id != trainer.key.job_id || one->order.generation() != trainer.order.generation() || one->state == State::kEnded)
      continue;
    if (one->key.role == v1::TRAIN && one->order.rank() < gang.size() &&
        (one->order.generation() == one->key.generation || one->equal || one->state != State::kLoading)) {
      gang[one->order.rank()] = one.get();
    }
  }
  return gang;
}

bool World::Progress(Trainer& trainer, bool all) {
  v1::ProgressReport report;
  report.set_job_id(trainer.key.job_id);
  report.set_generation(trainer.order.generation());
  // The newest is not agreed on yet where there are others.
  const uint64_t last = all || trainer.order.members_size() == 1 ? trainer.step : std::max(trainer.step, uint64_t{1}) - 1;
  for (uint64_t step = trainer.durable + 1; step <= last; ++step) {
    *report.add_steps() = StepRecordOf(trainer.key.job_id, step, trainer.order.generation());
  }
  if (Chance(5)) {
    late_.push_back([this, report] {
      const auto answer = coordinator_->ReportProgress(report);
      if (answer.ok()) oracle_.Believed(report.job_id(), report.generation(), "progress that comes late");
      if (!absl::IsUnavailable(answer.status())) return;
      Lives(answer.status());
    });
  }
  const auto answer = coordinator_->ReportProgress(report);
  if (!Lives(answer.status())) return false;
  if (absl::IsInvalidArgument(answer.status()) || absl::IsDataLoss(answer.status())) {
    oracle_.Breach(absl::StrCat("records of ", Name(trainer.key), ": ", answer.status().ToString()));
  }
  if (!answer.ok()) return false;
  oracle_.Believed(trainer.key.job_id, trainer.order.generation(), "progress");
  if (Chance(10)) return false;  // the answer is lost
  oracle_.Durable(trainer.key.job_id, answer->durable_step());
  trainer.durable = std::max(trainer.durable, answer->durable_step());
  return true;
}

void World::Train(Trainer& trainer) {
  const std::vector<Trainer*> gang = Gang(trainer);
  const bool whole = std::all_of(gang.begin(), gang.end(), [](const Trainer* one) { return one != nullptr; });
  const bool here = whole && std::all_of(gang.begin(), gang.end(), [](const Trainer* one) { return one->state == State::kTraining; });
  if (!here) {
    // A peer is dead, or has left: the collective breaks; or it has not come yet.
    const bool broken = !whole || std::any_of(gang.begin(), gang.end(), [](const Trainer* one) {
      return one->state == State::kAsking || one->state == State::kFinished || one->state == State::kConcluding;
    });
    if (broken && Chance(60)) trainer.state = State::kAsking;
    return;
  }
  if (!trainer.equal) {
    const auto furthest = *std::max_element(gang.begin(), gang.end(), [](const Trainer* a, const Trainer* b) { return a->step < b->step; });
    for (Trainer* one : gang) {
      if (one->step < furthest->step) one->step = furthest->step, one->durable = furthest->durable;
      one->equal = true;
    }
  }
  if (trainer.step < trainer.total) {
    ++tally_.steps;
    // Some may have committed what others saw break.
    const size_t committed = !calm_ && Chance(5) ? Random(gang.size() + 1) : gang.size();
    for (size_t i = 0; i < committed; ++i) ++gang[i]->step;
    if (committed < gang.size()) {
      for (Trainer* one : gang) one->state = State::kAsking;
      return;
    }
  }
  uint64_t durable = 0, newest = 0;
  bool cancel = false, pause = false;
  for (const Trainer* one : gang) {
    if (one->order.rank() == 0) durable = one->durable;
    newest = std::max(newest, one->newest);
    cancel |= one->cancel;
    pause |= one->pause;
  }
  for (Trainer* one : gang) {
    one->durable = std::max(one->durable, durable);
    const bool done = one->step >= one->total;
    if (done || cancel || pause) {
      one->ending = done ? v1::DONE : cancel ? v1::CANCELLED : v1::PAUSED;
      one->state = one->order.rank() == 0 ? State::kConcluding : State::kFinished;
    } else if (newest > one->order.generation()) {
      one->state = State::kAsking;
    }
  }
  Trainer& first = *gang[0];
  if (first.state != State::kTraining) return;
  Progress(first, false);
  if (first.step > 0 && Chance(20)) {
    const std::string name = absl::StrFormat("checkpoint-%09d.safetensors", first.step);
    const auto stored = coordinator_->StoreArtifact(first.key.job_id, first.order.generation(), {name, name, 10, kTestDigest});
    if (!Lives(stored.status())) return;
    if (stored.ok()) checkpoints_[first.key.job_id].try_emplace(first.step, first.durable);
  }
}

void World::Conclude(Trainer& trainer) {
  const std::string& job = trainer.key.job_id;
  const uint64_t generation = trainer.order.generation();
  absl::Status status;
  if (trainer.durable < trainer.step && !Progress(trainer, true)) {
    v1::ProgressReport nothing;
    nothing.set_job_id(job);
    nothing.set_generation(generation);
    status = coordinator_->ReportProgress(nothing).status();
    if (!Lives(status) || status.ok()) return;
  }
  if (status.ok()) {
    const std::string name = trainer.ending == v1::PAUSED ? absl::StrFormat("checkpoint-%09d.safetensors", trainer.step) : "trained.keras";
    status = coordinator_->StoreArtifact(job, generation, {name, name, 10, kTestDigest}).status();
    if (!Lives(status)) return;
    if (status.ok() && trainer.ending == v1::PAUSED) checkpoints_[job].try_emplace(trainer.step, trainer.durable);
  }
  if (status.ok()) {
    v1::EndReport end;
    end.set_job_id(job);
    end.set_generation(generation);
    end.set_state(trainer.ending);
    end.mutable_result()->set_steps(trainer.step);
    status = coordinator_->ReportEnd(end);
    if (!Lives(status)) return;
    if (status.ok()) oracle_.Believed(job, generation, "an end");
    if (status.ok() && Chance(20)) return;  // the answer is lost, and it is made again
    if (status.ok()) oracle_.Ended(job, trainer.ending);
  }
  Trace(absl::StrCat(Name(trainer.key), " concludes as ", v1::JobState_Name(trainer.ending), ": ",
                     status.ok() ? "ok" : "another generation"));
  if (!status.ok()) {
    Ask(trainer, true);
    if (trainer.state == State::kMeeting || trainer.state == State::kTraining) {
      trainer.state = trainer.order.rank() == 0 ? State::kConcluding : State::kFinished;
    }
    return;
  }
  trainer.state = State::kEnded;
  WorkerOf(trainer)->actual[trainer.key].ended = true;
}

void World::Act(Trainer& trainer) {
  switch (trainer.state) {
    case State::kPlanning: return Plan(trainer);
    case State::kLoading:
      if (!trainer.order.joins() && trainer.order.checkpoints_size() > 0) {
        const std::string& name = trainer.order.checkpoints(0);
        trainer.step = std::stoull(name.substr(name.find('-') + 1));
        trainer.durable = checkpoints_[trainer.key.job_id][trainer.step];
      }
      trainer.state = trainer.order.joins() ? State::kAsking : trainer.order.members_size() == 1 ? State::kTraining : State::kMeeting;
      return;
    case State::kAsking: return Ask(trainer, false);
    case State::kMeeting: return Meet(trainer);
    case State::kTraining: return Train(trainer);
    case State::kFinished: return Ask(trainer, true);
    case State::kConcluding: return Conclude(trainer);
    case State::kEnded: return;
  }
}

void World::LateCall() {
  if (late_.empty()) return;
  ++tally_.late_calls;
  const auto call = std::move(late_.front());
  late_.pop_front();
  call();
}

void World::OneEvent(bool faults) {
  ++tally_.events;
  const uint64_t what = Random(100);
  if (what < 8 && faults) {
    Client();
  } else if (what < 35) {
    Report(workers_[Random(workers_.size())], faults);
  } else if (what < 85) {
    if (Trainer* trainer = Pick(); trainer != nullptr) Act(*trainer);
  } else if (what < 90 && faults) {
    Fault();
  } else if (what < 92) {
    LateCall();
  } else {
    clock_.Advance(absl::Milliseconds(static_cast<int64_t>(Random(1000))));
    coordinator_->Tick();
  }
  if (oracle_.breach().empty() && (what % 4 == 0 || !faults)) oracle_.Look(*coordinator_);
}

std::string World::Run() {
  ++tally_.schedules;
  for (int i = 0; i < kEvents && oracle_.breach().empty(); ++i) OneEvent(/*faults=*/true);
  // Calm weather: what can end, ends.
  calm_ = true;
  if (oracle_.breach().empty()) Restart();
  for (Worker& worker : workers_) worker.up = true;
  const auto all_ended = [&] {
    return std::all_of(oracle_.jobs().begin(), oracle_.jobs().end(), [](const auto& job) { return HasEnded(job.second.state); });
  };
  int left = kMostCalmEvents;
  for (; left > 0 && oracle_.breach().empty() && !all_ended(); --left) {
    OneEvent(/*faults=*/false);
    if (left % 50 != 0) continue;
    for (const auto& [id, view] : oracle_.jobs()) {
      if (HasEnded(view.state)) continue;
      coordinator_->Resume(id).IgnoreError();
      // What was scaled to more than these workers have must be able to end, too.
      v1::Replicas wanted;
      wanted.set_min(1);
      wanted.set_max(1);
      coordinator_->Scale(id, wanted).IgnoreError();
      oracle_.Scaled(id, 1);
    }
  }
  if (oracle_.breach().empty() && !all_ended()) oracle_.Breach("a job does not end, though nothing goes wrong any more");
  if (oracle_.breach().empty()) {
    Restart();
    oracle_.Look(*coordinator_);
  }
  for (const auto& [id, view] : oracle_.jobs()) {
    ++tally_.jobs_by_end[view.state];
    tally_.generations += view.secrets.size();
  }
  return oracle_.breach();
}

}  // namespace lockstep::simulation
