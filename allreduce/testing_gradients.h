#pragma once
// For tests: gradients of leaves in which the order of additions shows, and their sum along the tree as the definition has it.

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "allreduce/layout.h"
#include "allreduce/tree.h"

namespace lockstep::allreduce {

// One vector of the layout a leaf; zero between segments. Magnitudes of 2^-20 … 2^20, so that sums round.
template <typename T>
std::vector<std::vector<T>> RandomGradients(const Layout& layout, int leaves, std::mt19937_64& random) {
  std::vector<std::vector<T>> gradients(static_cast<size_t>(leaves), std::vector<T>(layout.elements, T{0}));
  std::uniform_real_distribution<double> mantissa(-1, 1);
  std::uniform_int_distribution<int> exponent(-20, 20);
  for (std::vector<T>& gradient : gradients) {
    for (const Segment& segment : layout.segments) {
      for (size_t i = 0; i < segment.count; ++i) {
        gradient[segment.offset + i] = static_cast<T>(std::ldexp(mantissa(random), exponent(random)));
      }
    }
  }
  return gradients;
}

template <typename T>
std::vector<T> SumAlongTree(const std::vector<std::vector<T>>& gradients, Subtree node) {
  if (node.size() == 1) return gradients[static_cast<size_t>(node.begin)];
  const int split = SplitOf(node);
  std::vector<T> sum = SumAlongTree(gradients, {node.begin, split});
  const std::vector<T> right = SumAlongTree(gradients, {split, node.end});
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = sum[i] + right[i];
  return sum;
}

// Random layout: a few segments, now and then an empty one, and small buckets.
inline Layout RandomLayout(Element element, std::mt19937_64& random) {
  std::vector<size_t> counts(std::uniform_int_distribution<size_t>(1, 6)(random));
  for (size_t& count : counts) count = std::uniform_int_distribution<size_t>(0, 300)(random);
  return MakeLayout(counts, element, std::uniform_int_distribution<size_t>(1, 1500)(random));
}

// Leaves in `parts` runs of random sizes.
inline std::vector<LeafRange> RandomRuns(LeafRange leaves, int parts, std::mt19937_64& random) {
  std::vector<LeafRange> runs;
  int begin = leaves.begin;
  for (int left = parts; left > 0; --left) {
    const int most = leaves.end - begin - (left - 1);
    const int size = left == 1 ? most : std::uniform_int_distribution<int>(1, most)(random);
    runs.push_back({begin, begin + size});
    begin += size;
  }
  return runs;
}

}  // namespace lockstep::allreduce
