// Runs early stopping, the reduction of the learning rate and the choice of the best epoch over sequences of figures, for
// tests/parity/callback_test.py. JSON in, JSON out.

#include <iostream>

#include "model/training/best.h"
#include "model/training/compile_config.h"
#include "model/training/early_stopping.h"
#include "model/training/reduce_on_plateau.h"

namespace lockstep {
namespace {

std::optional<double> NumberOrNull(const Json& value) { return value.is_null() ? std::nullopt : std::optional(value.get<double>()); }

// JSON has no NaN: null stands for it.
EpochLogs LogsOf(const Json& value) {
  return {{"loss", 1.0}, {"val_accuracy", value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>()}};
}

Json RunCase(const Json& one) {
  const std::vector<MonitoredMetric> metrics = {{"loss", Direction::kDown}, {"accuracy", Direction::kUp}};
  const Monitor monitor = *MakeMonitor("test", "val_accuracy", one["mode"], one["min_delta"], metrics, /*has_validation=*/true);
  const EarlyStopping stopping(monitor, {one["patience"], NumberOrNull(one["baseline"]), one["restore_best"], one["start_from_epoch"]});
  const ReduceOnPlateau plateau =
      *ReduceOnPlateau::Create(monitor, {one["factor"], one["plateau_patience"], one["cooldown"], one["min_learning_rate"]});
  const Best best(*MakeMonitor("test", "val_accuracy", one["mode"], 0, metrics, true));
  EarlyStoppingState stopping_state;
  ReduceOnPlateauState plateau_state;
  BestState best_state;
  float rate = one["learning_rate"].get<float>();
  Json result = {{"stopped", -1}, {"kept", -1}, {"rates", Json::array()}, {"best", Json::array()}};
  int64_t epoch = 0;
  for (const Json& value : one["values"]) {
    const EpochLogs logs = LogsOf(value);
    if (best.OnEpochEnd(epoch, logs, best_state)) result["best"].push_back(epoch);
    if (const auto reduced = plateau.OnEpochEnd(logs, rate, plateau_state)) rate = static_cast<float>(*reduced);
    result["rates"].push_back(rate);
    const EarlyStopping::Decision decision = stopping.OnEpochEnd(epoch, logs, stopping_state);
    if (decision.keep_weights) result["kept"] = epoch;
    if (decision.stop && result["stopped"] == -1) result["stopped"] = epoch;
    ++epoch;
  }
  result["best_epoch"] = stopping_state.best_epoch;
  return result;
}

int Main() {
  const Json request = Json::parse(std::cin);
  Json cases = Json::array();
  for (const Json& one : request["cases"]) cases.push_back(RunCase(one));
  std::cout << Json{{"cases", cases}};
  return 0;
}

}  // namespace
}  // namespace lockstep

int main() { return lockstep::Main(); }
