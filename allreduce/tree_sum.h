#pragma once
// Finishes the tree above the ranks' subtree sums, for a slice of the vector: the additions to make, in order, found once a
// generation. Thread-safety: const after construction, but for the scratch given to it.

#include <cstddef>
#include <span>
#include <vector>

#include "allreduce/tree.h"

namespace lockstep::allreduce {

class TreeSum {
 public:
  // Elements summed at a time: intermediate sums stay in the cache.
  static constexpr size_t kBlock = 4096;

  // `subtrees`: nodes that make up 0 … leaves-1, in order.
  TreeSum(int leaves, const std::vector<Subtree>& subtrees);

  size_t scratch_elements() const { return static_cast<size_t>(registers_) * kBlock; }

  // out[i] = the tree's sum over inputs[·][i], for i < count <= kBlock. `inputs`: by subtree. `out` may be one of them.
  template <typename T>
  void Sum(std::span<const T* const> inputs, size_t count, std::span<T> scratch, T* out) const;

 private:
  // Operands: the inputs, then registers.
  struct Addition {
    int left = 0;
    int right = 0;
    int sum = 0;
  };
  int Plan(Subtree node, const std::vector<Subtree>& subtrees, int free_register);

  int inputs_ = 0;
  int registers_ = 0;
  std::vector<Addition> additions_;  // the last one's sum is the result
};

extern template void TreeSum::Sum(std::span<const float* const>, size_t, std::span<float>, float*) const;
extern template void TreeSum::Sum(std::span<const double* const>, size_t, std::span<double>, double*) const;

}  // namespace lockstep::allreduce
