#include "memory/segments.h"

#include <algorithm>
#include <utility>

#include "memory/segment_costs.h"
#include "memory/segment_search.h"

namespace lockstep::memory {
namespace {

// Beyond what the search stores, so many more outputs are tried one by one.
constexpr int kMostTried = 100;

// Outputs for which there is room, the most worth first.
void StoreMore(const SegmentCosts& ranges, int64_t limit, Choice& choice) {
  struct Further {
    size_t segment;
    int inner;  // -1: of the segment itself
    int call;
  };
  const auto of = [](std::vector<CallRange>& segments, const Further& one) -> CallRange& {
    CallRange& segment = segments[one.segment];
    return one.inner < 0 ? segment : segment.inner[static_cast<size_t>(one.inner)];
  };
  std::vector<Further> further;
  const auto add = [&](const CallRange& segment, size_t index, int inner) {
    for (int call = segment.first; call < segment.end; ++call) {
      if (ranges.Storable(call, segment.end) == 0 || std::binary_search(segment.stored.begin(), segment.stored.end(), call)) continue;
      further.push_back({index, inner, call});
    }
  };
  for (size_t i = 0; i < choice.segments.size(); ++i) {
    const CallRange& segment = choice.segments[i];
    add(segment, i, -1);
    for (size_t j = 0; j < segment.inner.size(); ++j) add(segment.inner[j], i, static_cast<int>(j));
  }
  std::stable_sort(further.begin(), further.end(),
                   [&](const Further& a, const Further& b) { return ranges.Worth(a.call) > ranges.Worth(b.call); });
  int tried = 0;
  for (const Further& one : further) {
    if (++tried > kMostTried) break;
    std::vector<CallRange> with = choice.segments;
    std::vector<int>& stored = of(with, one).stored;
    stored.insert(std::lower_bound(stored.begin(), stored.end(), one.call), one.call);
    Choice more = ranges.Of(std::move(with));
    if (more.bytes <= limit) choice = std::move(more);
  }
}

}  // namespace

Choice CostOf(const PassCosts& costs, std::vector<CallRange> segments) { return SegmentCosts(costs).Of(std::move(segments)); }

std::optional<Choice> ChooseSegments(const PassCosts& costs, int64_t limit_bytes) {
  if (limit_bytes <= 0) return std::nullopt;
  const SegmentCosts ranges(costs);
  std::optional<std::vector<CallRange>> segments = SegmentSearch(costs, ranges).Run(limit_bytes, /*nested=*/true);
  if (!segments) return std::nullopt;
  Choice choice = ranges.Of(*std::move(segments));
  StoreMore(ranges, limit_bytes, choice);
  return choice;
}

Choice FewestBytes(const PassCosts& costs) {
  const SegmentCosts ranges(costs);
  Choice best = ranges.Of({});
  SegmentSearch search(costs, ranges);
  // First without pieces within pieces, which take longer to find.
  for (const bool nested : {false, true}) {
    for (int64_t low = nested ? best.bytes / 4 : 0; low + best.bytes / 300 < best.bytes;) {
      const int64_t middle = low + (best.bytes - low) / 2;
      auto segments = search.Run(middle, nested);
      Choice choice = segments ? ranges.Of(*std::move(segments)) : best;
      if (choice.bytes < best.bytes) {
        best = std::move(choice);
      } else {
        low = middle;
      }
    }
  }
  return best;
}

}  // namespace lockstep::memory
