#include "model/training/best.h"

namespace lockstep {

bool Best::OnEpochEnd(int64_t epoch, const EpochLogs& logs, BestState& state) const {
  const std::optional<double> value = monitor_.ValueIn(logs);
  if (!value || (state.has_best != 0 && !monitor_.Improves(*value, state.best))) return false;
  state = {*value, 1, epoch};
  return true;
}

}  // namespace lockstep
