#pragma once
// Free ranges of a region, none touching another: neighbours become one as they are added. Found by place and by size.
//
// Not thread-safe.

#include <cstdint>
#include <optional>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "memory/address_region.h"

namespace lockstep::memory {

class RangeSet {
 public:
  // `time` is when it was freed; a range that was joined of several counts from the latest. REQUIRES: nothing of it is in the set.
  void Add(Range range, int64_t time);
  // Takes a part of one of the ranges out. REQUIRES: it is part of one.
  void Remove(Range part);

  // The smallest range of at least `size` bytes, the one at the lowest address among several.
  std::optional<Range> BestFit(int64_t size) const;
  // The range that begins at `begin`; an empty one if there is none.
  Range BeginningAt(int64_t begin) const;
  // The range that was freed longest ago. REQUIRES: bytes() > 0.
  Range Oldest() const;
  // Of the ranges that hold `size` bytes together with the range of `next` that begins where they end, the largest; an empty one if
  // there is none.
  Range LargestBefore(const RangeSet& next, int64_t size) const;
  int64_t bytes() const { return bytes_; }

 private:
  struct Rest {
    int64_t size = 0;
    int64_t time = 0;
  };

  absl::btree_map<int64_t, Rest> by_begin_;
  absl::btree_set<std::pair<int64_t, int64_t>> by_size_;  // size, begin
  int64_t bytes_ = 0;
};

}  // namespace lockstep::memory
