#pragma once
// Which segments of a graph to compute twice so that a training pass stays within a limit, at the least extra time. A pure function over
// what one recorded pass says of each call. Between the trace and planning, which records a pass with what is chosen here and so learns
// what it takes to the byte.
//
// Source of the problem: checkpointing of activations (Chen et al. 2016, arXiv:1604.06174). Solved here by dynamic programming over the
// places where the graph may be cut: a state is (cut, bytes stored before it), its value the least extra time; every piece between two cuts
// is either kept as it is, or stores only the values that leave it and is computed again in backward. In a piece that is computed again
// the outputs of some calls are stored all the same, those that cost the most time for their bytes: from them on it goes with what is
// cheap. No libtorch.

#include <cstdint>
#include <optional>
#include <vector>

#include "memory/trace.h"

namespace lockstep::memory {

// Of a recorded pass: where its calls begin and what they made, by index of the trace's events and blocks.
struct PassMarks {
  std::vector<size_t> calls;      // by call: the first event of its forward
  std::vector<int32_t> outputs;   // by call: the block that holds what it made; -1: memory that the pass did not ask for
  std::vector<double> seconds;    // by call: of its forward
  size_t loss = 0, backward = 0;  // the first event of each
  double backward_seconds = 0;
};

// A value between calls, and when it is alive.
struct ValueLife {
  int made_by = -1;                   // call; -1: the input
  int first_use = -1, last_use = -1;  // calls
};

struct PassCosts {
  struct Call {
    int64_t kept = 0;    // asked for in its forward, and held until backward
    int64_t beside = 0;  // the most that its forward or its backward takes beside what it and the calls before it keep
    double seconds = 0;
    bool takes_output = false;  // need not be computed again where its output is stored, or not used again
  };
  struct Value {
    ValueLife life;
    int64_t bytes = 0;  // 0: no memory of the pass
    bool kept = false;  // also without segments
  };
  std::vector<Call> calls;  // one more than the graph has: the loss
  std::vector<Value> values;
  std::vector<bool> may_cut;  // before each call
  double seconds = 0;         // of forward and backward
};

// `trace` is of a pass without segments, of one micro-batch; `may_cut` and `takes_output` have one entry a call.
PassCosts CostsOf(const Trace& trace, const PassMarks& marks, const std::vector<ValueLife>& values, std::vector<bool> may_cut,
                  const std::vector<bool>& takes_output);

// Calls [first, end), in order and disjoint; the last call is in none. `stored`: those whose outputs are stored.
struct CallRange {
  int first = 0, end = 0;
  std::vector<int> stored;
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
