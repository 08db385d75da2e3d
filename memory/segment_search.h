#pragma once
// The search for segments (memory/segments.h) under one limit after another. Belongs to one thread. No libtorch.

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "memory/pass_costs.h"
#include "memory/segment_costs.h"
#include "memory/segments.h"

namespace lockstep::memory {

class SegmentSearch {
 public:
  // Both must outlive the object.
  SegmentSearch(const PassCosts& costs, const SegmentCosts& ranges);

  // Nothing: there are none. Without `nested` of pieces within pieces, in half the time.
  std::optional<std::vector<CallRange>> Run(int64_t limit, bool nested);

 private:
  static constexpr double kNone = std::numeric_limits<double>::infinity();

  // A piece from one cut to another that is computed again.
  struct Jump {
    size_t to = 0, degree = 0;
    int64_t peak = 0, leaving = 0;  // with what it stores
    int64_t stored = 0;
    double seconds = 0;
    int inner = -1;  // index into inner_; -1: it is computed again in one piece
  };
  // A piece from one cut to the next that is kept as it is.
  using Step = SegmentCosts::Kept;
  struct State {
    int64_t stored = 0;
    double seconds = kNone;
    bool again = false;  // the piece before it is computed again
    int from = -1, from_bin = -1;
    const Jump* jump = nullptr;
    // Up to there, the most of: all; what is computed again, when it is let go of once more; what is kept, in its forward.
    int64_t peak = 0, forgotten = 0, forward = 0;
  };
  // States from one cut on, by cut and bin.
  struct Table {
    size_t start = 0;
    int64_t limit = 0;
    int bins = 0;
    std::vector<State> states;
    std::vector<double> seconds;  // of the states, apart: what is asked most often lies close together
    double bins_per_byte = 0;
    size_t Index(size_t cut, int bin) const { return (cut - start) * static_cast<size_t>(2 * bins) + static_cast<size_t>(bin); }
    State& At(size_t cut, int bin) { return states[Index(cut, bin)]; }
  };

  void AddJumps(size_t from);
  static void SortByPeak(std::vector<Jump>& jumps);
  bool Stores(int call, size_t degree) const { return ranges_.Worth(call) >= degrees_[degree]; }
  void Fill(Table& table, bool whole) const;
  void KeepNext(Table& table, size_t from, int bin) const;
  void Recompute(Table& table, const std::vector<Jump>& jumps, size_t from, int bin, int64_t entering) const;
  // Where to write a state that is better than what is there; null: it is not.
  static State* Reach(Table& table, size_t cut, bool again, int64_t stored, double seconds);
  std::vector<CallRange> PathTo(Table& table, size_t cut, int bin) const;
  void AddNested(int64_t limit);
  void AddNested(Table& table, size_t to);

  const SegmentCosts& ranges_;
  const std::vector<int> cuts_;
  const std::vector<size_t> outer_;  // indices into cuts_: where pieces with further ones within them may begin and end
  const std::vector<double> degrees_;
  const Step loss_;
  // By cut.
  std::vector<Step> steps_;
  std::vector<std::vector<Jump>> jumps_, plain_, nested_;  // plain_: those that store nothing
  std::vector<std::vector<int64_t>> forgotten_;            // SegmentCosts::Forgotten
  std::vector<std::vector<CallRange>> inner_;
};

}  // namespace lockstep::memory
