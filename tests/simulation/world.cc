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

}  // namespace

std::string Name(const TrainerKey& key) {
  return absl::StrCat(key.job_id.substr(key.job_id.size() - 3), "/", key.generation, ".", key.rank);
}

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

void World::Trace(const std::string& text) {
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
  } else if (what < 66) {
    if (Trainer* trainer = Pick(); trainer != nullptr) {
      ++tally_.trainer_deaths;
      Die(*trainer, 9);
    }
  } else if (what < 79) {
    const std::string one = workers_[Random(workers_.size())].id;
    const std::string other = workers_[Random(workers_.size())].id;
    if (one == other) return;
    const bool mended = parted_.erase({one, other}) + parted_.erase({other, one}) > 0;
    if (!mended) parted_.insert({one, other}), ++tally_.parted;
    Trace(absl::StrCat("trainers of ", one, " and of ", other, mended ? " hear each other again" : " cannot hear each other"));
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
  parted_.clear();
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
  for (const auto& trainer : trainers_) {
    Trace(absl::StrCat("at the end ", Name(trainer->key), " on ", trainer->worker, ": state ", static_cast<int>(trainer->state), ", rank ",
                       trainer->order.rank(), " of generation ", trainer->order.generation(), ", step ", trainer->step, " of ",
                       trainer->total, ", durable ", trainer->durable));
  }
  for (const auto& [id, view] : oracle_.jobs()) {
    ++tally_.jobs_by_end[view.state];
    tally_.generations += view.secrets.size();
  }
  return oracle_.breach();
}

}  // namespace lockstep::simulation
