#include "allreduce/tree_sum.h"

#include <algorithm>

#include "allreduce/sum.h"

namespace lockstep::allreduce {

TreeSum::TreeSum(int leaves, const std::vector<Subtree>& subtrees) : inputs_(static_cast<int>(subtrees.size())) {
  Plan({0, leaves}, subtrees, 0);
}

int TreeSum::Plan(Subtree node, const std::vector<Subtree>& subtrees, int free_register) {
  const auto given = std::find(subtrees.begin(), subtrees.end(), node);
  if (given != subtrees.end()) return static_cast<int>(given - subtrees.begin());
  const int split = SplitOf(node);
  const int left = Plan({node.begin, split}, subtrees, free_register);
  const int right = Plan({split, node.end}, subtrees, left < inputs_ ? free_register : free_register + 1);
  registers_ = std::max(registers_, free_register + 1);
  additions_.push_back({left, right, inputs_ + free_register});
  return inputs_ + free_register;
}

template <typename T>
void TreeSum::Sum(std::span<const T* const> inputs, size_t count, std::span<T> scratch, T* out) const {
  const auto inputs_count = static_cast<size_t>(inputs_);
  const auto place = [&](size_t operand) { return scratch.data() + (operand - inputs_count) * kBlock; };
  const auto operand = [&](int index) -> const T* {
    const auto at = static_cast<size_t>(index);
    return at < inputs_count ? inputs[at] : place(at);
  };
  for (const Addition& addition : additions_) {
    T* const sum = &addition == &additions_.back() ? out : place(static_cast<size_t>(addition.sum));
    AddElements(sum, operand(addition.left), operand(addition.right), count);
  }
  if (additions_.empty() && out != inputs.front()) std::copy_n(inputs.front(), count, out);
}

template void TreeSum::Sum(std::span<const float* const>, size_t, std::span<float>, float*) const;
template void TreeSum::Sum(std::span<const double* const>, size_t, std::span<double>, double*) const;

}  // namespace lockstep::allreduce
