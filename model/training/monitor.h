#pragma once
// The figure that a callback watches, and what it calls an improvement (Keras's MonitorCallback). No libtorch. Immutable values.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace lockstep {

// An epoch's figures by name: "loss", "accuracy", "val_loss", … .
using EpochLogs = std::vector<std::pair<std::string, double>>;

enum class Direction { kDown, kUp };  // which way is better

struct MonitoredMetric {
  std::string name;
  Direction direction = Direction::kDown;
};

struct Monitor {
  std::string metric;
  Direction direction = Direction::kDown;
  double min_delta = 0;  // at least 0

  // The watched figure; nothing if the epoch has none.
  std::optional<double> ValueIn(const EpochLogs& logs) const;
  // Better than the reference by more than min_delta, in float32, where Keras compares. Not a number never is.
  bool Improves(double value, double reference) const;
};

// `field` stands in errors; `mode` is "min", "max", "auto" or empty (by the metric's own direction). InvalidArgument with the known names
// if there is no such figure, if it is a validation's and there is none, or for another mode.
absl::StatusOr<Monitor> MakeMonitor(const std::string& field, const std::string& metric, const std::string& mode, double min_delta,
                                    const std::vector<MonitoredMetric>& metrics, bool has_validation);

}  // namespace lockstep
