#pragma once
// What one training (or evaluating) pass over one virtual replica takes: steps of the very graph over a few made-up samples are recorded
// under the counting allocator, and what they ask for is extended to the micro-batch that is wanted, which is never computed
// (memory/trace.h). Nothing of it is kept. Includes libtorch through the model.

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "memory/category.h"
#include "memory/trace.h"
#include "trainer/loaded_model.h"
#include "trainer/run_spec.h"

namespace lockstep {

struct TrialFigures {
  memory::Bytes at_peak;         // of one virtual replica at a time, gradients' sums included
  memory::Bytes step_at_peak;    // of that, what a step adds: bytes_per_thread by category
  int64_t fixed_bytes = 0;       // parameters, gradients, optimizer
  int64_t bytes_per_thread = 0;  // what each virtual replica side by side adds
  std::string place;             // what runs at the peak: "forward conv1", "backward conv1"
  std::string note;              // where it had to be measured with all samples
  memory::Timeline timeline;     // of one virtual replica's step, for a picture
  // What a step takes with any other micro-batch of the same regime; none where it had to be measured.
  std::optional<memory::AffineTrace> steps;

  // The most samples of a micro-batch, up to the planned one, with which a virtual replica takes no more than `bytes`; 0: not even the
  // fewest of its regime, or it is not known.
  int64_t LargestMicroBatch(int64_t planned, int64_t bytes) const;
};

// ResourceExhausted: even a few samples do not fit into the machine. InvalidArgument: the graph cannot run on such pictures.
// REQUIRES: the image, micro-batch and precision are resolved.
absl::StatusOr<TrialFigures> RunTrial(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe);

// The peak of a whole step as it really is, beside the state, for those who compare.
absl::StatusOr<int64_t> MeasureStep(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe);

}  // namespace lockstep
