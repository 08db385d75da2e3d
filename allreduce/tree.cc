#include "allreduce/tree.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace lockstep::allreduce {
namespace {

void Collect(Subtree node, LeafRange run, std::vector<Subtree>& out) {
  if (node.end <= run.begin || run.end <= node.begin) return;
  if (run.begin <= node.begin && node.end <= run.end) {
    out.push_back(node);
    return;
  }
  const int split = SplitOf(node);
  Collect({node.begin, split}, run, out);
  Collect({split, node.end}, run, out);
}

}  // namespace

int SplitOf(Subtree node) { return node.begin + static_cast<int>(std::bit_floor(static_cast<unsigned>(node.size() - 1))); }

std::vector<Subtree> MaximalSubtrees(int leaves, LeafRange run) {
  std::vector<Subtree> subtrees;
  if (run.size() > 0) Collect({0, leaves}, run, subtrees);
  return subtrees;
}

std::vector<LeafRange> EvenRuns(int leaves, int parts) {
  const int small = leaves / parts;
  const int longer = leaves % parts;  // this many runs have one leaf more
  // fewest[i][k]: subtrees of the first i runs when k of them are longer. The i-th then begins at (i-1)·small + k.
  constexpr int kImpossible = std::numeric_limits<int>::max() / 2;
  std::vector<std::vector<int>> fewest(static_cast<size_t>(parts) + 1, std::vector<int>(static_cast<size_t>(longer) + 1, kImpossible));
  const auto cost = [&](int index, int longer_before, int extra) {
    const int begin = index * small + longer_before;
    return static_cast<int>(MaximalSubtrees(leaves, {begin, begin + small + extra}).size());
  };
  fewest[0][0] = 0;
  for (int i = 0; i < parts; ++i) {
    for (int k = 0; k <= longer; ++k) {
      const int so_far = fewest[static_cast<size_t>(i)][static_cast<size_t>(k)];
      if (so_far == kImpossible) continue;
      for (int extra = 0; extra <= 1 && k + extra <= longer; ++extra) {
        int& best = fewest[static_cast<size_t>(i) + 1][static_cast<size_t>(k) + static_cast<size_t>(extra)];
        best = std::min(best, so_far + cost(i, k, extra));
      }
    }
  }
  std::vector<LeafRange> runs(static_cast<size_t>(parts));
  int k = longer;
  for (int i = parts; i-- > 0;) {
    const int here = fewest[static_cast<size_t>(i) + 1][static_cast<size_t>(k)];
    const bool short_run = fewest[static_cast<size_t>(i)][static_cast<size_t>(k)] + cost(i, k, 0) == here;
    const int extra = short_run ? 0 : 1;
    k -= extra;
    const int begin = i * small + k;
    runs[static_cast<size_t>(i)] = {begin, begin + small + extra};
  }
  return runs;
}

}  // namespace lockstep::allreduce
