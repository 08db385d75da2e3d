#include "memory/range_set.h"

#include <algorithm>
#include <iterator>

namespace lockstep::memory {

void RangeSet::Add(Range range, int64_t time) {
  bytes_ += range.size;
  auto next = by_begin_.lower_bound(range.begin);
  if (next != by_begin_.end() && next->first == range.end()) {
    by_size_.erase({next->second.size, next->first});
    range.size += next->second.size;
    time = std::max(time, next->second.time);
    next = by_begin_.erase(next);
  }
  if (next != by_begin_.begin()) {
    const auto previous = std::prev(next);
    Rest& rest = previous->second;
    if (previous->first + rest.size == range.begin) {
      by_size_.erase({rest.size, previous->first});
      rest = {rest.size + range.size, std::max(rest.time, time)};
      by_size_.emplace(rest.size, previous->first);
      return;
    }
  }
  by_begin_.emplace_hint(next, range.begin, Rest{range.size, time});
  by_size_.emplace(range.size, range.begin);
}

void RangeSet::Remove(Range part) {
  const auto found = std::prev(by_begin_.upper_bound(part.begin));
  const Range whole{found->first, found->second.size};
  const int64_t time = found->second.time;
  bytes_ -= part.size;
  by_size_.erase({whole.size, whole.begin});
  if (part.begin == whole.begin) {
    by_begin_.erase(found);
  } else {
    found->second.size = part.begin - whole.begin;
    by_size_.emplace(found->second.size, whole.begin);
  }
  if (part.end() == whole.end()) return;
  by_begin_.emplace(part.end(), Rest{whole.end() - part.end(), time});
  by_size_.emplace(whole.end() - part.end(), part.end());
}

std::optional<Range> RangeSet::BestFit(int64_t size) const {
  const auto found = by_size_.lower_bound({size, 0});
  if (found == by_size_.end()) return std::nullopt;
  return Range{found->second, found->first};
}

Range RangeSet::BeginningAt(int64_t begin) const {
  const auto found = by_begin_.find(begin);
  return found == by_begin_.end() ? Range{} : Range{begin, found->second.size};
}

Range RangeSet::LargestBefore(const RangeSet& next, int64_t size) const {
  for (auto entry = by_size_.rbegin(); entry != by_size_.rend(); ++entry) {
    const Range range{entry->second, entry->first};
    if (next.BeginningAt(range.end()).size >= size - range.size) return range;
  }
  return {};
}

Range RangeSet::Oldest() const {
  const auto oldest =
      std::min_element(by_begin_.begin(), by_begin_.end(), [](const auto& a, const auto& b) { return a.second.time < b.second.time; });
  return {oldest->first, oldest->second.size};
}

}  // namespace lockstep::memory
