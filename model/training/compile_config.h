#pragma once
// How a model is to be trained: what compile() was told, as the archive has it, with what the job overrides. Everything that is wrong or
// unknown is refused at once, by name and place. No libtorch.
//
// Where it stands: the planner and the trainer read a recipe from an opened archive; loss, metrics, optimizer and callbacks are made of it.
// Immutable values.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/training/loss_config.h"
#include "model/training/monitor.h"
#include "model/training/optimizer_config.h"

namespace lockstep {

struct Recipe {
  OptimizerConfig optimizer;
  LossConfig loss;
  std::vector<MetricConfig> metrics;
  // compile() asked for compiled steps. The numbers are the same without.
  bool jit_compile = false;
  // What a user should know about how the file was understood.
  std::vector<std::string> notes;

  // The archive's optimizer state is continued: the job did not name another optimizer.
  bool continues_optimizer = true;
  // The learning rate is the job's; else the archive's saved one counts where it continues.
  bool overrides_learning_rate = false;
  // compile_config as it is to stand in the trained archive, so that Keras continues with what trained. Null: as it stands.
  Json compile_config;
};

// The job's; empty or unset is the archive's. Each text a name ("adam") or Keras's serialized object.
struct RecipeOverrides {
  std::string optimizer;
  std::optional<double> learning_rate;
  std::string loss;
  std::vector<std::string> metrics;
};

// `compile_config` as in the archive, null for a model that was never compiled. InvalidArgument with every problem, a line each, naming
// the field ("compile.optimizer.momentum", "metrics[0]"): an unknown or custom optimizer, loss, metric or option, with those we know and
// the nearest; none given; an output that does not fit the classes.
absl::StatusOr<Recipe> ReadRecipe(const Json& compile_config, const RecipeOverrides& overrides, const OutputShape& output);

// What callbacks may watch: the loss and the recipe's metrics, without "val_".
std::vector<MonitoredMetric> MonitoredMetrics(const Recipe& recipe);

}  // namespace lockstep
