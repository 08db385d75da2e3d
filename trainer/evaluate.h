#pragma once
// EVALUATE and PREDICT: one pass over a folder in order, without training. Includes libtorch through its parts.

#include "absl/status/statusor.h"
#include "trainer/data_source.h"
#include "trainer/memory_account.h"
#include "trainer/step_runner.h"
#include "trainer/training.h"

namespace lockstep {

// Loss and metrics over the folder.
template <typename T>
absl::StatusOr<RunOutcome> RunEvaluate(const RunSpec& spec, const DataSource& data, MemoryAccount& account, GradientExchange<T>& exchange,
                                       StepRunner<T>& runner, Reporter& reporter);

// predictions.csv in the scratch folder: path, class, and a column for each output unit, in the order of the folder's sorted paths.
// REQUIRES: one rank.
template <typename T>
absl::StatusOr<RunOutcome> RunPredict(const RunSpec& spec, const Model& model, const DataSource& data, MemoryAccount& account,
                                      GradientExchange<T>& exchange, StepRunner<T>& runner, Reporter& reporter);

}  // namespace lockstep
