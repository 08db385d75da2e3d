#pragma once
// What a job asks to be decided after each epoch, from figures that are the same on every replica: early stopping, learning-rate
// reduction, the best epoch. No libtorch. Not thread-safe.

#include <optional>

#include "absl/status/statusor.h"
#include "model/training/best.h"
#include "model/training/compile_config.h"
#include "model/training/early_stopping.h"
#include "model/training/reduce_on_plateau.h"
#include "trainer/run_spec.h"

namespace lockstep {

struct Callbacks {
  std::optional<EarlyStopping> early_stopping;
  std::optional<ReduceOnPlateau> plateau;
  std::optional<Best> best;
};

// InvalidArgument with every problem, a line each: a metric that will not be there, an unknown mode, a schedule under
// reduce_on_plateau.
absl::StatusOr<Callbacks> MakeCallbacks(const RunSpec& spec, const Recipe& recipe, bool has_validation);

}  // namespace lockstep
