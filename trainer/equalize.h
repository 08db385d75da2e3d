#pragma once
// Makes the members of a generation equal before its first step, where some of them lived before it, or read a checkpoint. Includes
// libtorch through its parts.

#include "absl/status/status.h"
#include "trainer/fit_state.h"
#include "trainer/gradient_exchange.h"
#include "trainer/replica.h"
#include "trainer/run_spec.h"

namespace lockstep {

// Called by all ranks alike. Whoever is behind gets the whole state (`replica`, `state`, the reporter's records, the best epoch's files in
// the scratch folder) of those that are furthest, who send the tensors in parallel, and the rest by their lowest rank. It lands in files
// first: a source that dies before the end leaves those who receive where they were. Aborted, DataLoss: a peer's trouble, nothing has
// changed.
template <typename T>
absl::Status Equalize(const RunSpec& spec, GradientExchange<T>& exchange, Replica<T>& replica, FitState& state, Reporter& reporter);

}  // namespace lockstep
