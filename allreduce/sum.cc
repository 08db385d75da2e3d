// Compiled with -O3 -fopenmp-simd (CMakeLists.txt).
#include "allreduce/sum.h"

namespace lockstep::allreduce {

template <typename T>
void AddElements(T* sum, const T* left, const T* right, size_t count) {
  if (left == nullptr || right == nullptr) {
    // A real addition: -0 + 0 is 0, and copying would leave -0.
    const T* const some = left == nullptr ? right : left;
#pragma omp simd
    for (size_t i = 0; i < count; ++i) sum[i] = some[i] + T{0};
    return;
  }
  // What may overlap is the same element.
#pragma omp simd
  for (size_t i = 0; i < count; ++i) sum[i] = left[i] + right[i];
}

template void AddElements(float*, const float*, const float*, size_t);
template void AddElements(double*, const double*, const double*, size_t);

}  // namespace lockstep::allreduce
