#include "worker/outbox.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

bool SameTrainers(const std::vector<v1::TrainerReport>& a, const std::vector<v1::TrainerReport>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const v1::TrainerReport& x, const v1::TrainerReport& y) {
    return x.pid() == y.pid() && x.job_id() == y.job_id() && x.generation() == y.generation();
  });
}

}  // namespace

void Outbox::SetRunning(std::vector<v1::TrainerReport> running) {
  absl::MutexLock lock(&mutex_);
  if (!SameTrainers(running_, running)) SetUrgent();
  running_ = std::move(running);
}

void Outbox::AddEnded(const TrainerKey& key, v1::TrainerReport report) {
  absl::MutexLock lock(&mutex_);
  ended_[key] = {std::move(report), 0};
  SetUrgent();
}

void Outbox::AddLog(const TrainerKey& key, std::string text) {
  if (text.empty()) return;
  absl::MutexLock lock(&mutex_);
  log_bytes_ += text.size();
  const bool fresh = !logs_.empty() && logs_.back().sequence == 0;
  if (fresh && logs_.back().key == key && logs_.back().text.size() + text.size() <= kMostLogBytesInReport / 4) {
    logs_.back().text += text;
  } else {
    logs_.push_back({key, std::move(text), 0});
  }
  DropOldestLines();
  if (log_bytes_ > kMostLogBytesInReport / 2) SetUrgent();
}

void Outbox::DropOldestLines() {
  while (log_bytes_ > kMostLogBytes && logs_.size() > 1) {
    const Lines& oldest = logs_.front();
    lines_dropped_ += static_cast<size_t>(std::count(oldest.text.begin(), oldest.text.end(), '\n'));
    log_bytes_ -= oldest.text.size();
    logs_.pop_front();
  }
}

void Outbox::SetUrgent() {
  urgent_ = true;
  bell_->Ring();
}

void Outbox::Fill(uint64_t sequence, v1::WorkerReport* report) {
  absl::MutexLock lock(&mutex_);
  for (const v1::TrainerReport& trainer : running_) *report->add_trainers() = trainer;
  for (auto& [key, ended] : ended_) {
    *report->add_trainers() = ended.report;
    ended.sequence = sequence;
  }
  size_t bytes = 0;
  for (Lines& lines : logs_) {
    if (bytes > 0 && bytes + lines.text.size() > kMostLogBytesInReport) break;
    bytes += lines.text.size();
    lines.sequence = sequence;
    v1::LogLines* one = report->add_logs();
    one->set_job_id(lines.key.job_id);
    one->set_generation(lines.key.generation);
    one->set_rank(lines.key.rank);
    if (lines_dropped_ > 0) {
      one->set_text(absl::StrCat("[", std::exchange(lines_dropped_, 0), " lines lost: more than the worker keeps]\n"));
    }
    one->mutable_text()->append(lines.text);
  }
  // The rest of the lines follows as soon as these are acknowledged.
  urgent_ = bytes < log_bytes_;
}

void Outbox::Acknowledge(uint64_t sequence) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(ended_, [sequence](const auto& one) { return one.second.sequence != 0 && one.second.sequence <= sequence; });
  while (!logs_.empty() && logs_.front().sequence != 0 && logs_.front().sequence <= sequence) {
    log_bytes_ -= logs_.front().text.size();
    logs_.pop_front();
  }
}

bool Outbox::urgent() const {
  absl::MutexLock lock(&mutex_);
  return urgent_;
}

bool Outbox::IsAcknowledged(const TrainerKey& key) const {
  absl::MutexLock lock(&mutex_);
  return !ended_.contains(key);
}

std::vector<v1::TrainerReport> Outbox::Running() const {
  absl::MutexLock lock(&mutex_);
  return running_;
}

}  // namespace lockstep
