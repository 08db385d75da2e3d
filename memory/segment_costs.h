#pragma once
// What stretches of a recorded pass take, kept or computed again: the arithmetic between what a recording says of each call
// (memory/pass_costs.h) and the choice of segments (memory/segments.h). Immutable. No libtorch.

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "memory/pass_costs.h"
#include "memory/segments.h"

namespace lockstep::memory {

class SegmentCosts {
 public:
  // `costs` must outlive the object.
  explicit SegmentCosts(const PassCosts& costs);

  // Of calls that are kept: what stays of them, the most that they take, and the most that their forward takes.
  struct Kept {
    int64_t bytes = 0, peak = 0, forward = 0;
  };
  Kept KeptAsIs(int first, int end) const;

  // Of calls that are computed again and then kept.
  struct Again {
    int64_t peak = 0;    // beside what is stored before them, with what they store themselves
    int64_t stored = 0;  // of outputs of these calls
    double seconds = 0;
  };
  Again ComputedAgain(int first, int end, absl::FunctionRef<bool(int call)> stores) const;
  // The same, with what is within it: its peak is then that of computing it again in pieces.
  Again ComputedAgain(const CallRange& segment) const;
  // The most that calls [first, end) take where nothing is kept for backward, by end − first − 1, up to `last`.
  std::vector<int64_t> Forgotten(int first, int last) const;

  // Of a whole pass with segments.
  Choice Of(std::vector<CallRange> segments) const;

  // Bytes of the output of a call that may be stored in a segment up to `end`; 0: there is nothing to gain.
  int64_t Storable(int call, int end) const;
  // The time that storing an output saves, for each of its bytes.
  double Worth(int call) const { return worth_[static_cast<size_t>(call)]; }
  // What leaves calls that are let go of, as far as calls before `until` use it first.
  int64_t Leaving(int first, int end, int until) const;
  // What has to be stored where a segment begins, calls from `since` on came before it, and none of these was let go of.
  int64_t Entering(int call, int since) const;
  // What goes from calls before to those from `call` on: so large are the gradients that come back.
  int64_t Passing(int call) const { return passing_[static_cast<size_t>(call)]; }

 private:
  struct Stretch {
    int64_t peak = 0;
    double seconds = 0;
  };
  Stretch Of(int first, int end, const std::vector<CallRange>& segments, int64_t taken, int64_t gradients) const;

  const PassCosts& costs_;
  // By call.
  std::vector<const PassCosts::Value*> made_;
  std::vector<int64_t> passing_;
  std::vector<double> worth_;
};

}  // namespace lockstep::memory
