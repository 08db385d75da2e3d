#pragma once
// Which parts of a graph are computed a second time in backward, so that their activations need not be kept from forward until then.
// Plain data: written by planning, read by Model::Train. No libtorch.

#include <cstdint>
#include <vector>

namespace lockstep {

// Calls [first, end) of the graph, in the order of execution.
struct Segment {
  int first = 0;
  int end = 0;
  // Those of its calls whose outputs are stored from forward until backward, in order: they are not computed again.
  std::vector<int> stored;
  friend bool operator==(const Segment&, const Segment&) = default;
};

struct Recomputation {
  std::vector<Segment> segments;  // in order, disjoint; none: nothing is computed twice
  // Predicted: tensor memory of one virtual replica beside the state, and the time of forward and backward as a ratio to that without.
  int64_t bytes_per_thread = 0;
  double time_ratio = 1;
};

}  // namespace lockstep
