#pragma once
// What a trainer is doing, for whoever wonders why a step does not end: the phase at hand, and the last ones. No libtorch.
// Thread-safe.

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace lockstep {

class Activity {
 public:
  struct View {
    std::string phase;
    uint64_t step = 0;
    double phase_seconds = 0;
    // Of a step, from its beginning until it waits for others; the newest weighs a fifth.
    double busy_seconds = 0;
    std::vector<std::string> recent;  // the last one last
  };

  // `phase` must live for good. A step begins with kStepBegins, and waits for others from kWaitsForOthers on.
  static constexpr char kStepBegins[] = "begin";
  static constexpr char kWaitsForOthers[] = "reduce";
  void Enter(const char* phase, uint64_t step);
  View Take() const;

 private:
  struct Moment {
    const char* phase = "start";
    uint64_t step = 0;
    absl::Time since;
  };
  mutable absl::Mutex mutex_;
  Moment now_ ABSL_GUARDED_BY(mutex_) = {"loading", 0, absl::Now()};
  absl::Time step_began_ ABSL_GUARDED_BY(mutex_);
  double busy_seconds_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::pair<Moment, absl::Duration>> recent_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace lockstep
