#pragma once
// Compute threads that live as long as the trainer: starting a thread anew each step costs libtorch its per-thread state (a
// third of the speed, measured). Run hands the same piece of work to all and waits for all.

#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace lockstep {

class ThreadTeam {
 public:
  // `prepare(i)` runs first on thread i: one intra-op thread each, and what else a thread needs.
  ThreadTeam(int threads, const std::function<void(int)>& prepare);
  ~ThreadTeam();

  int size() const { return static_cast<int>(threads_.size()); }

  // work(i) on every thread i; returns when all have. `work` must not throw. Called by one thread at a time.
  void Run(const std::function<void(int)>& work);

 private:
  void Loop(int index, const std::function<void(int)>& prepare);

  absl::Mutex mutex_;
  const std::function<void(int)>* work_ ABSL_GUARDED_BY(mutex_) = nullptr;
  uint64_t round_ ABSL_GUARDED_BY(mutex_) = 0;
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace lockstep
