#pragma once
// The loops of batch normalisation over rows of channels: x is (rows, C), all others are (C). On one thread; sums are in T over blocks
// of 256 rows and in float64 over the blocks, in an order that depends on the shape alone.

#include <cstdint>

namespace lockstep {

// y = clamp(x · scale + offset, low, high); scale = gamma / sqrt(variance + epsilon), offset = beta − mean · scale.
template <typename T>
struct Normalisation {
  const T *scale, *offset, *mean;
  T low, high;
};

#define LOCKSTEP_DECLARE_BATCH_NORM_KERNELS(T)                                                                                            \
  /* Adds sums of (x − pivot) and of its square. */                                                                                     \
  void SumDeviations(const T* x, const T* pivot, int64_t rows, int64_t channels, double* sum, double* square);                            \
  void Normalise(const T* x, const Normalisation<T>& norm, int64_t rows, int64_t channels, T* y);                                         \
  /* Adds, of the gradient before the clamp (0 at and beyond its ends), its sum and its sum times (x − mean). */                        \
  void SumGradient(const T* x, const T* dy, const Normalisation<T>& norm, int64_t rows, int64_t channels, double* sum, double* product);  \
  /* The same, and leaves that gradient in `gradient`, which held dy. */                                                                  \
  void TakeGradient(const T* x, T* gradient, const Normalisation<T>& norm, int64_t rows, int64_t channels, double* sum, double* product); \
  /* dx = scale · (g − a − (x − mean) · b), g the gradient before the clamp. dx may be dy, or x. */                               \
  void InputGradient(const T* x, const T* dy, const Normalisation<T>& norm, const T* a, const T* b, int64_t rows, int64_t channels, T* dx);
LOCKSTEP_DECLARE_BATCH_NORM_KERNELS(float)
LOCKSTEP_DECLARE_BATCH_NORM_KERNELS(double)
#undef LOCKSTEP_DECLARE_BATCH_NORM_KERNELS

}  // namespace lockstep
