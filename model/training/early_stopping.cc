#include "model/training/early_stopping.h"

namespace lockstep {

EarlyStopping::Decision EarlyStopping::OnEpochEnd(int64_t epoch, const EpochLogs& logs, EarlyStoppingState& state) const {
  Decision decision;
  const std::optional<double> value = monitor_.ValueIn(logs);
  if (!value || epoch < options_.start_from_epoch) return decision;
  const auto keep = [&] {
    decision.keep_weights = true;
    state.keeps = 1;
    state.best_epoch = epoch;
  };
  // Weights that were never kept are the best so far, even if the figure is not a number.
  if (options_.restore_best && state.keeps == 0) keep();
  ++state.wait;
  if (state.has_best == 0 || monitor_.Improves(*value, state.best)) {
    state.best = *value;
    state.has_best = 1;
    state.best_epoch = epoch;
    if (options_.restore_best) keep();
    // Only what beats the baseline too starts the wait anew.
    if (!options_.baseline || monitor_.Improves(*value, *options_.baseline)) state.wait = 0;
    return decision;
  }
  decision.stop = state.wait >= options_.patience && epoch > 0;
  return decision;
}

}  // namespace lockstep
