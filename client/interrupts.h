#pragma once
// SIGINT, SIGTERM and SIGHUP as calls, for as long as this lives. Its own thread takes them; all others, and those that they start
// from then on, have them blocked. REQUIRES: made before any thread that it is to protect.

#include <signal.h>

#include <atomic>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace lockstep {

class Interrupts {
 public:
  Interrupts();
  // Signals have their old effect again.
  ~Interrupts();

  int count() const { return count_; }

  // Calls `handler` with 1, 2, … at each signal from now on, one call at a time, on this object's thread. If some came before, it is
  // called for the newest now. An empty handler: none; the last call has returned then. Not from within a handler.
  void Handle(std::function<void(int count)> handler);

 private:
  void Run();

  sigset_t previous_;
  int signal_fd_;
  int stop_event_;
  std::atomic<int> count_ = 0;
  absl::Mutex mutex_;
  std::function<void(int)> handler_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace lockstep
