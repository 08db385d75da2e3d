#pragma once
// For tests of whole jobs in one process, where each rank is a thread: what a rank tells, and how ranks meet.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "trainer/gradient_exchange.h"
#include "trainer/records.h"

namespace lockstep {

// Keeps everything that a rank told.
class Record : public Reporter {
 public:
  void Step(StepFigures figures) override { steps.push_back(std::move(figures)); }
  void Epoch(EpochFigures figures) override { epochs.push_back(std::move(figures)); }
  void Pass(PassFigures figures) override { passes.push_back(std::move(figures)); }
  void Note(std::string text) override { notes.push_back(std::move(text)); }
  void Status(StatusFigures) override {}
  bool CancelWanted() const override { return cancel_after >= 0 && static_cast<int>(steps.size() + passes.size()) >= cancel_after; }

  uint64_t DurableStep() const override { return 0; }
  void Forget(uint64_t) override {}
  void Agreed(uint64_t) override {}
  std::string Records() const override { return ""; }
  void TakeRecords(const std::string&) override {}
  uint64_t NewestGeneration() const override { return 0; }
  bool PauseWanted() const override { return false; }
  void Enter(const char*, uint64_t) override {}
  void InHand(std::string) override {}

  int cancel_after = -1;  // steps; -1: never
  std::vector<StepFigures> steps;
  std::vector<EpochFigures> epochs;
  std::vector<PassFigures> passes;
  std::vector<std::string> notes;
};

// The coordinator's part: waits for all ranks' endpoints.
class Meeting {
 public:
  explicit Meeting(int ranks) : endpoints_(static_cast<size_t>(ranks)) {}
  Rendezvous For(int rank) {
    return [this, rank](const allreduce::Endpoint& mine, const auto&) -> absl::StatusOr<std::vector<allreduce::Endpoint>> {
      absl::MutexLock lock(&mutex_);
      endpoints_[static_cast<size_t>(rank)] = mine;
      ++here_;
      const auto all = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return here_ == static_cast<int>(endpoints_.size()); };
      mutex_.Await(absl::Condition(&all));
      return endpoints_;
    };
  }

 private:
  absl::Mutex mutex_;
  std::vector<allreduce::Endpoint> endpoints_ ABSL_GUARDED_BY(mutex_);
  int here_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace lockstep
