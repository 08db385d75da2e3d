#pragma once
// Which segments of a graph to compute twice so that a training pass stays within a limit, at the least extra time. A pure function over
// what one recorded pass says of each call. Between the trace and planning, which records a pass with what is chosen here and so learns
// what it takes to the byte.
//
// Source of the problem: checkpointing of activations (Chen et al. 2016, arXiv:1604.06174). Solved here by dynamic programming over the
// places where the graph may be cut: a state is (cut, bytes stored before it), its value the least extra time; every piece between two cuts
// is either kept as it is, or stores only the values that leave it and is computed again in backward. In a piece that is computed again
// the outputs of some calls are stored all the same, those that cost the most time for their bytes: from them on it goes with what is
// cheap. And it may be computed again in pieces, some of which are let go of once more. No libtorch.

#include <cstdint>
#include <optional>
#include <vector>

#include "memory/pass_costs.h"

namespace lockstep::memory {

// Calls [first, end), in order and disjoint; the last call is in none.
struct CallRange {
  int first = 0, end = 0;
  // Those of its calls whose outputs are stored from forward until backward, in order: they are not computed again.
  std::vector<int> stored;
  // Segments within it, in order and disjoint: when it is computed again, they are let go of once more, and computed a third time.
  std::vector<CallRange> inner;
  friend bool operator==(const CallRange&, const CallRange&) = default;
};
struct Choice {
  std::vector<CallRange> segments;
  int64_t bytes = 0;  // about, at the highest moment
  double time_ratio = 1;
};

// What a choice costs.
Choice CostOf(const PassCosts& costs, std::vector<CallRange> segments);
// Nothing: there are none that stay within the limit, as far as the costs tell.
std::optional<Choice> ChooseSegments(const PassCosts& costs, int64_t limit_bytes);
// Those with the fewest bytes.
Choice FewestBytes(const PassCosts& costs);

}  // namespace lockstep::memory
