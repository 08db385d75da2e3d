#pragma once
// A trial step: what one training (or evaluating) pass over one virtual replica takes, measured under the counting allocator on
// made-up pictures. Nothing of it is kept. Includes libtorch through the model.

#include <cstdint>

#include "absl/status/statusor.h"
#include "memory/category.h"
#include "trainer/loaded_model.h"
#include "trainer/run_spec.h"

namespace lockstep {

struct TrialFigures {
  memory::Bytes at_peak;         // of one virtual replica at a time, gradients' sums included
  int64_t fixed_bytes = 0;       // parameters, gradients, optimizer
  int64_t bytes_per_thread = 0;  // what each virtual replica side by side adds
};

// ResourceExhausted: it does not fit into the job's limit, or the machine. InvalidArgument: the graph cannot run on such pictures.
// REQUIRES: the image, micro-batch and precision are resolved.
absl::StatusOr<TrialFigures> RunTrial(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe);

}  // namespace lockstep
