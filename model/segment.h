#pragma once
// Which parts of a graph are computed a second time in backward, so that their activations need not be kept from forward until then.
// Plain data: written by planning, read by Model::Train. No libtorch.

#include <cstdint>
#include <vector>

#include "memory/segments.h"

namespace lockstep {

// Calls of the graph, in the order of execution, as they are chosen.
using Segment = memory::CallRange;

struct Recomputation {
  std::vector<Segment> segments;  // in order, disjoint; none: nothing is computed twice
  // Predicted: tensor memory of one virtual replica beside the state, and the time of forward and backward as a ratio to that without.
  int64_t bytes_per_thread = 0;
  double time_ratio = 1;
};

}  // namespace lockstep
