#pragma once
// A replica's whole state, and how far the run has come, as a checkpoint file; and back. Between Replica and CheckpointFileWriter. The
// tensors are named, shaped and ordered as Keras has them; whoever reads one gets the same bits.
//
// Includes libtorch through its parts. Not thread-safe.

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/model.h"
#include "trainer/fit_state.h"
#include "trainer/replica.h"
#include "trainer/run_spec.h"

namespace lockstep {

// Its name among a job's artifacts, in the order of steps.
std::string CheckpointName(uint64_t step);

// What of the files that the state consists of beside the tensors (the best epoch's) belongs to a checkpoint: where they are, or
// nothing.
struct CheckpointFiles {
  std::string best_archive, best_weights;
};

// `state`: Replica::CopyState's, with `progress` as it was then.
template <typename T>
absl::Status WriteCheckpoint(const std::string& path, const RunSpec& spec, const Model& model, const Replica<T>& replica,
                             absl::Span<const std::byte> state, FitState& progress, const CheckpointFiles& files);

// DataLoss: it is damaged, or another job's; replica and progress are as they were.
template <typename T>
absl::Status ReadCheckpoint(const std::string& path, const RunSpec& spec, const Model& model, Replica<T>& replica, FitState& progress,
                            const CheckpointFiles& files);

}  // namespace lockstep
