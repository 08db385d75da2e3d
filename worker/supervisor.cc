#include "worker/supervisor.h"

#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"

namespace lockstep {
namespace {

// Of no calendar: only for differences.
absl::Time MonotonicNow() { return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); }

TrainerWord WordOf(const v1::TrainerOrder& order) {
  return {.cancel = order.cancel(), .pause = order.pause(), .newest_generation = order.newest_generation()};
}

v1::TrainerReport NotStarted(const TrainerKey& key, const absl::Status& reason) {
  v1::TrainerReport report;
  report.set_job_id(key.job_id);
  report.set_generation(key.generation);
  report.set_rank(key.rank);
  report.set_role(key.role);
  report.set_ended(true);
  report.set_exit_code(127);
  report.set_message(absl::StrCat("not started: ", reason.message()));
  return report;
}

}  // namespace

Supervisor::Supervisor(SupervisorOptions options, Outbox* outbox)
    : options_(std::move(options)),
      outbox_(outbox),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      silence_(options_.silence),
      thread_([this] { Loop(); }) {}

Supervisor::~Supervisor() {
  {
    absl::MutexLock lock(&mutex_);
    quit_ = true;
  }
  Wake();
  thread_.join();
}

void Supervisor::Wake() {
  const uint64_t one = 1;
  // Fails only if the counter is full, and then it is readable.
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof(one));
}

void Supervisor::SetOrders(v1::WorkerOrders orders) {
  {
    absl::MutexLock lock(&mutex_);
    orders_ = std::move(orders);
  }
  Wake();
}

absl::Status Supervisor::Drain() {
  {
    absl::MutexLock lock(&mutex_);
    draining_ = true;
  }
  Wake();
  absl::MutexLock lock(&mutex_);
  if (mutex_.AwaitWithTimeout(absl::Condition(&idle_), options_.stopping.grace + absl::Seconds(10))) return absl::OkStatus();
  return absl::DeadlineExceededError("trainers still run that were killed: the kernel does not let them go");
}

TrainerCounts Supervisor::counts() const {
  absl::MutexLock lock(&mutex_);
  return counts_;
}

void Supervisor::Loop() {
  for (;;) {
    TakeOrders();
    const absl::Time next = std::min(Step(), WatchSilence());
    Publish();
    {
      absl::MutexLock lock(&mutex_);
      idle_ = draining_ && std::none_of(entries_.begin(), entries_.end(), [](const auto& one) { return !one.second.actual.ended; });
      if (quit_) break;
    }
    Poll(next);
  }
  entries_.clear();
}

void Supervisor::TakeOrders() {
  std::optional<v1::WorkerOrders> orders;
  {
    absl::MutexLock lock(&mutex_);
    orders = std::exchange(orders_, std::nullopt);
    stopping_ = draining_;
  }
  if (orders.has_value()) {
    if (orders->silence_ms() > 0) silence_ = absl::Milliseconds(orders->silence_ms());
    wanted_.clear();
    for (v1::TrainerOrder& order : *orders->mutable_trainers()) {
      const TrainerKey key = KeyOf(order);
      wanted_[key] = std::move(order);
    }
  }
  if (stopping_) wanted_.clear();
}

absl::Time Supervisor::Step() {
  const absl::Time now = MonotonicNow();
  ReconcileOptions options = options_.stopping;
  if (stopping_) options.patience = absl::ZeroDuration();
  std::vector<WantedTrainer> wanted;
  for (const auto& [key, order] : wanted_) wanted.push_back({key, WordOf(order)});
  std::vector<ActualTrainer> actual;
  for (auto& [key, entry] : entries_) {
    if (wanted_.contains(key)) {
      entry.actual.unwanted_since.reset();
    } else if (!entry.actual.unwanted_since.has_value()) {
      entry.actual.unwanted_since = now;
    }
    entry.actual.acknowledged = entry.actual.ended && outbox_->IsAcknowledged(key);
    actual.push_back(entry.actual);
  }
  const Reconciliation todo = Reconcile(wanted, actual, now, options);
  for (const TrainerKey& key : todo.forget) entries_.erase(key);
  for (const TrainerKey& key : todo.terminate) Stop(key, SIGTERM);
  for (const TrainerKey& key : todo.kill) Stop(key, SIGKILL);
  for (const TrainerKey& key : todo.start) Start(key);
  for (const TrainerKey& key : todo.tell) {
    const v1::TrainerOrder& order = wanted_.at(key);
    LOG_INFO("%s cancel=%d pause=%d newest_generation=%d", ToString(key), order.cancel(), order.pause(), order.newest_generation());
    entries_.at(key).process->Tell(order);
    entries_.at(key).actual.told = WordOf(order);
  }
  return todo.start.empty() ? todo.next : now;
}

void Supervisor::Start(const TrainerKey& key) {
  Entry& entry = entries_[key];
  entry.order = wanted_.at(key);
  entry.actual.key = key;
  // Its order says so; but a cancelled one is told once it can listen.
  entry.actual.told.newest_generation = entry.order.newest_generation();
  v1::TrainerStart start = options_.start;
  *start.mutable_order() = entry.order;
  start.set_scratch(ScratchOf(key));
  absl::StatusOr<std::unique_ptr<TrainerProcess>> process = TrainerProcess::Start(options_.trainer, start);
  if (process.ok()) {
    entry.process = *std::move(process);
    entry.process->Heard(MonotonicNow());
    LOG_INFO("%s pid=%d state=started", ToString(key), entry.process->report().pid());
    Count(&TrainerCounts::started);
  } else {
    LOG_ERROR("%s error=\"%s\"", ToString(key), process.status().message());
    entry.actual.ended = true;
    Count(&TrainerCounts::not_started);
    outbox_->AddEnded(key, NotStarted(key, process.status()));
  }
}

void Supervisor::Count(uint64_t TrainerCounts::*what) {
  absl::MutexLock lock(&mutex_);
  ++(counts_.*what);
}

void Supervisor::Stop(const TrainerKey& key, int signal) {
  Entry& entry = entries_.at(key);
  LOG_INFO("%s pid=%d signal=%s reason=\"%s\"", ToString(key), entry.process->report().pid(), sigabbrev_np(signal),
           stopping_ ? "the worker leaves" : "not wanted any more");
  entry.process->Signal(signal);
  entry.actual.terminated = true;
  entry.actual.killed = signal == SIGKILL;
}

// Of a stopped process, or one whose host lets it starve; whoever computes for long has a thread that beats. Where this thread was away
// itself, nobody's silence means anything.
absl::Time Supervisor::WatchSilence() {
  const absl::Time now = MonotonicNow();
  const bool away = now - std::exchange(last_look_, now) > silence_ / 2;
  absl::Time next = absl::InfiniteFuture();
  for (auto& [key, entry] : entries_) {
    if (entry.process == nullptr || entry.actual.killed) continue;
    if (away) entry.process->Heard(now);
    const absl::Duration silent = now - entry.process->last_heard();
    if (silent >= silence_) {
      LOG_WARNING("%s pid=%d signal=KILL reason=\"no sign of life for %s\"", ToString(key), entry.process->report().pid(),
                  absl::FormatDuration(silent));
      entry.process->KillAsSilent(silent);
      entry.actual.killed = true;
      Count(&TrainerCounts::silent);
    } else {
      next = std::min({next, entry.process->last_heard() + silence_, now + silence_ / 4});
    }
  }
  return next;
}

void Supervisor::Poll(absl::Time until) {
  std::vector<pollfd> descriptors = {{wake_.get(), POLLIN, 0}};
  std::vector<Entry*> running;
  for (auto& [key, entry] : entries_) {
    if (entry.process == nullptr) continue;
    running.push_back(&entry);
    descriptors.push_back({entry.process->pidfd(), POLLIN, 0});
    descriptors.push_back({entry.process->control(), POLLIN, 0});
    descriptors.push_back({entry.process->output(), POLLIN, 0});
  }
  int timeout_ms = -1;
  if (until != absl::InfiniteFuture()) {
    timeout_ms = static_cast<int>(std::max<int64_t>(0, absl::ToInt64Milliseconds(until - MonotonicNow()) + 1));
  }
  if (poll(descriptors.data(), descriptors.size(), timeout_ms) <= 0) return;
  uint64_t rings = 0;
  [[maybe_unused]] const ssize_t taken = read(wake_.get(), &rings, sizeof(rings));
  for (size_t i = 0; i < running.size(); ++i) Serve(running[i], &descriptors[1 + 3 * i]);
}

void Supervisor::Serve(Entry* entry, const pollfd* ready) {
  if (ready[1].revents != 0) {
    entry->process->ReadControl();
    entry->process->Heard(MonotonicNow());
  }
  if (ready[2].revents != 0) outbox_->AddLog(entry->actual.key, entry->process->ReadOutput());
  if (ready[0].revents != 0) TakeEnd(entry);
}

void Supervisor::TakeEnd(Entry* entry) {
  entry->process->Reap();
  outbox_->AddLog(entry->actual.key, entry->process->RestOfOutput());
  const v1::TrainerReport report = entry->process->report();
  entry->process.reset();
  entry->actual.ended = true;
  LOG_INFO("%s pid=%d state=ended exit_code=%d signal=%d message=\"%s\"", ToString(entry->actual.key), report.pid(), report.exit_code(),
           report.signal(), report.message());
  if (report.signal() != 0 && entry->actual.killed && !entry->actual.terminated) {
    // Counted when it was found silent.
  } else if (report.signal() != 0) {
    Count(entry->actual.terminated ? &TrainerCounts::stopped : &TrainerCounts::crashed);
  } else {
    Count(report.exit_code() == 0 ? &TrainerCounts::done : &TrainerCounts::failed);
  }
  outbox_->AddEnded(entry->actual.key, report);
}

void Supervisor::Publish() {
  std::vector<v1::TrainerReport> running;
  for (const auto& [key, entry] : entries_) {
    if (entry.process != nullptr) running.push_back(entry.process->report());
  }
  outbox_->SetRunning(std::move(running));
}

std::string Supervisor::ScratchOf(const TrainerKey& key) {
  // Ids come over the network: no separators, no leading dot.
  std::string job = key.job_id;
  for (char& c : job) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-') c = '_';
  }
  return absl::StrCat(options_.scratch, "/", job, ".", v1::Role_Name(key.role), ".", key.generation, ".", key.rank);
}

}  // namespace lockstep
