#include "trainer/callbacks.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"

namespace lockstep {

absl::StatusOr<Callbacks> MakeCallbacks(const RunSpec& spec, const Recipe& recipe, bool has_validation) {
  Callbacks callbacks;
  std::vector<std::string> problems;
  const std::vector<MonitoredMetric> metrics = MonitoredMetrics(recipe);
  const auto monitor = [&](const char* field, const std::string& metric, const std::string& mode,
                           double min_delta) -> std::optional<Monitor> {
    absl::StatusOr<Monitor> made = MakeMonitor(field, metric, mode, min_delta, metrics, has_validation);
    if (made.ok()) return std::move(*made);
    problems.emplace_back(made.status().message());
    return std::nullopt;
  };
  if (spec.stop_early) {
    const StopEarlySpec& stop = *spec.stop_early;
    if (auto watched = monitor("stop_early", stop.metric, stop.mode, stop.min_delta)) {
      callbacks.early_stopping.emplace(std::move(*watched),
                                       EarlyStopping::Options{stop.patience, stop.baseline, stop.restore_best, stop.start_from_epoch});
    }
  }
  if (spec.reduce_on_plateau) {
    const ReduceOnPlateauSpec& plateau = *spec.reduce_on_plateau;
    if (auto watched = monitor("reduce_on_plateau", plateau.metric, plateau.mode, plateau.min_delta)) {
      absl::StatusOr<ReduceOnPlateau> made =
          ReduceOnPlateau::Create(std::move(*watched), {plateau.factor, plateau.patience, plateau.cooldown, plateau.min_learning_rate});
      if (made.ok()) {
        callbacks.plateau = std::move(*made);
      } else {
        problems.emplace_back(made.status().message());
      }
    }
    if (!recipe.optimizer.learning_rate.settable()) {
      problems.emplace_back("reduce_on_plateau: the optimizer's learning rate follows a schedule, which cannot be reduced");
    }
  }
  if (!spec.best_metric.empty()) {
    if (auto watched = monitor("checkpoint.best", spec.best_metric, spec.best_mode, 0)) callbacks.best.emplace(std::move(*watched));
  }
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
  return callbacks;
}

}  // namespace lockstep
