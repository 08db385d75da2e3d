#pragma once
// When to reduce the learning rate (Keras's ReduceLROnPlateau). A pure function over its state. No libtorch.

#include <cstdint>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "model/training/monitor.h"

namespace lockstep {

// Without padding.
struct ReduceOnPlateauState {
  double best = 0;
  int64_t has_best = 0;
  int64_t wait = 0;      // epochs since the last improvement
  int64_t cooldown = 0;  // epochs left of it
};

class ReduceOnPlateau {
 public:
  struct Options {
    double factor = 0.1;
    int patience = 10;
    int cooldown = 0;
    double min_learning_rate = 0;
  };

  // InvalidArgument: a factor that is not between 0 and 1, something below 0.
  static absl::StatusOr<ReduceOnPlateau> Create(Monitor monitor, Options options);
  const Monitor& monitor() const { return monitor_; }

  // The new learning rate, where it is to be reduced from `learning_rate`.
  std::optional<double> OnEpochEnd(const EpochLogs& logs, double learning_rate, ReduceOnPlateauState& state) const;

 private:
  ReduceOnPlateau(Monitor monitor, Options options) : monitor_(std::move(monitor)), options_(options) {}

  Monitor monitor_;
  Options options_;
};

}  // namespace lockstep
