#pragma once
// What one recorded pass says of each call of the graph: what it keeps, what it takes beside that, how long it takes. Between a recording
// and the choice of segments (memory/segments.h). Plain data. No libtorch.

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "memory/trace.h"

namespace lockstep::memory {

// Of a recorded pass: where its calls begin and what they made, by index of the trace's events and blocks.
struct PassMarks {
  std::vector<size_t> calls;               // by call: the first event of its forward
  std::vector<int32_t> outputs;            // by call: the block that holds what it made; -1: memory that the pass did not ask for
  std::vector<double> seconds;             // by call: that its forward took of a processor
  size_t loss = 0, backward = 0, end = 0;  // the first event of each, and beyond the last
  // In the order in which backward comes to them: a call, and the first event of its backward.
  std::vector<std::pair<int, size_t>> backward_calls;
  double backward_seconds = 0;

  // These are of a pass over `samples`, the others of one over `others`: what disturbed one of them need not have disturbed the other.
  void TakeLeastSeconds(int64_t samples, const PassMarks& other, int64_t others);
};

// A value between calls, and when it is alive.
struct ValueLife {
  int made_by = -1;                   // call; -1: the input
  int first_use = -1, last_use = -1;  // calls
};

struct PassCosts {
  struct Call {
    int64_t kept = 0;     // asked for in its forward, and held until backward
    int64_t beside = 0;   // the most that its forward or its backward takes beside what it and the calls before it keep
    int64_t forward = 0;  // of that, what its forward takes
    double seconds = 0;
    bool takes_output = false;          // need not be computed again where its output is stored, or not used again
    bool gradient_over_output = false;  // the gradient of its output came to lie where that lay
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

}  // namespace lockstep::memory
