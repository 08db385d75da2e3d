#pragma once
// FIT: epochs of steps, validation after each, and what is decided from its figures (early stopping, plateau, best epoch), the
// same on every replica. Includes libtorch through its parts.

#include "absl/status/statusor.h"
#include "trainer/data_source.h"
#include "trainer/memory_account.h"
#include "trainer/place.h"
#include "trainer/training.h"

namespace lockstep {

template <typename T>
absl::StatusOr<RunOutcome> RunFit(const RunSpec& spec, const RunFiles& files, const Model& model, const Recipe& recipe,
                                  const DataSource& data, MemoryAccount& account, Replica<T>& replica, Place<T>& place,
                                  const CheckpointStorage& storage, Reporter& reporter);

}  // namespace lockstep
