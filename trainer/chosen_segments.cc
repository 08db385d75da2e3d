#include "trainer/chosen_segments.h"

#include "absl/strings/str_cat.h"

namespace lockstep {

Recomputation ToRecomputation(const memory::Choice& choice) {
  Recomputation recomputation;
  for (const memory::CallRange& range : choice.segments) recomputation.segments.push_back({range.first, range.end, range.stored});
  recomputation.bytes_per_thread = choice.bytes;
  recomputation.time_ratio = choice.time_ratio;
  return recomputation;
}

std::string ComputedAgainText(const Recomputation& recompute, size_t calls_of_graph) {
  int calls = 0;
  for (const Segment& segment : recompute.segments) calls += segment.end - segment.first - static_cast<int>(segment.stored.size());
  return absl::StrCat(calls, " of ", calls_of_graph, " layers computed again in backward");
}

}  // namespace lockstep
