#include "trainer/chosen_segments.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep {

Recomputation ToRecomputation(const memory::Choice& choice) {
  Recomputation recomputation;
  recomputation.segments = choice.segments;
  recomputation.bytes_per_thread = choice.bytes;
  recomputation.time_ratio = choice.time_ratio;
  return recomputation;
}

std::vector<Recomputation> SmallerChoices(const memory::PassCosts& costs, int64_t now, int64_t beyond, memory::Choice least) {
  std::vector<memory::Choice> choices;
  for (const int64_t target : {now * 3 / 4, now / 2}) {
    if (auto choice = memory::ChooseSegments(costs, target - beyond)) choices.push_back(*std::move(choice));
  }
  choices.push_back(std::move(least));
  std::vector<Recomputation> smaller;
  int64_t last = now;
  for (const memory::Choice& choice : choices) {
    Recomputation next = ToRecomputation(choice);
    next.bytes_per_thread += beyond;
    if (next.bytes_per_thread > last * 49 / 50) continue;
    last = next.bytes_per_thread;
    smaller.push_back(std::move(next));
  }
  return smaller;
}

std::string ComputedAgainText(const Recomputation& recompute, size_t calls_of_graph) {
  int calls = 0;
  for (const Segment& segment : recompute.segments) calls += segment.end - segment.first - static_cast<int>(segment.stored.size());
  return absl::StrCat(calls, " of ", calls_of_graph, " layers computed again in backward");
}

}  // namespace lockstep
