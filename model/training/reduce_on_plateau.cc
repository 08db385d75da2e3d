#include "model/training/reduce_on_plateau.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lockstep {

absl::StatusOr<ReduceOnPlateau> ReduceOnPlateau::Create(Monitor monitor, Options options) {
  if (!(options.factor > 0 && options.factor < 1)) {
    return absl::InvalidArgumentError(absl::StrCat("reduce_on_plateau.factor: ", options.factor, " is not between 0 and 1"));
  }
  if (options.patience < 0 || options.cooldown < 0 || !(options.min_learning_rate >= 0)) {
    return absl::InvalidArgumentError("reduce_on_plateau: patience, cooldown and min_learning_rate must be at least 0");
  }
  return ReduceOnPlateau(std::move(monitor), options);
}

std::optional<double> ReduceOnPlateau::OnEpochEnd(const EpochLogs& logs, double learning_rate, ReduceOnPlateauState& state) const {
  const std::optional<double> value = monitor_.ValueIn(logs);
  if (!value) return std::nullopt;
  if (state.cooldown > 0) {
    --state.cooldown;
    state.wait = 0;
  }
  if (state.has_best == 0 || monitor_.Improves(*value, state.best)) {
    state.best = *value;
    state.has_best = 1;
    state.wait = 0;
    return std::nullopt;
  }
  if (state.cooldown > 0 || ++state.wait < options_.patience) return std::nullopt;
  // Keras holds the rate in float32, and compares there.
  if (static_cast<float>(learning_rate) <= static_cast<float>(options_.min_learning_rate)) return std::nullopt;
  state.cooldown = options_.cooldown;
  state.wait = 0;
  return std::max(learning_rate * options_.factor, options_.min_learning_rate);
}

}  // namespace lockstep
