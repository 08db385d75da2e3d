#pragma once
// The only additions of the all-reduce. Elementwise, so that vectors of any width give the same bits.

#include <cstddef>

namespace lockstep::allreduce {

// sum[i] = left[i] + right[i]. `sum` may be `left` or `right`; otherwise they do not overlap. Null for `left` or `right` (not
// both) stands for zeros.
template <typename T>
void AddElements(T* sum, const T* left, const T* right, size_t count);

extern template void AddElements(float*, const float*, const float*, size_t);
extern template void AddElements(double*, const double*, const double*, size_t);

}  // namespace lockstep::allreduce
