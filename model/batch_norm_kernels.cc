#include "model/batch_norm_kernels.h"

#include <algorithm>

#include "model/lanes.h"

namespace lockstep {
namespace {

constexpr int64_t kBlockRows = 256;  // rows summed in T before float64 takes over

// Adds the lanes of a sum in T to float64.
template <typename V, typename T>
LOCKSTEP_IN_CLONES void AddLanes(const V& lanes, double* sum) {
  for (size_t i = 0; i < sizeof(V) / sizeof(T); ++i) sum[i] += reinterpret_cast<const T*>(&lanes)[i];
}

// `kCount` vectors of channels: their sums stay in registers.
template <typename V, int kCount, typename T>
LOCKSTEP_IN_CLONES void SumTile(const T* x, const T* pivot, int64_t rows, int64_t channels, double* sum, double* square) {
  constexpr int64_t kStep = sizeof(V) / sizeof(T);
  V p[kCount];
  for (int i = 0; i < kCount; ++i) Load(pivot + i * kStep, p[i]);
  for (int64_t begin = 0; begin < rows; begin += kBlockRows) {
    V s[kCount] = {}, q[kCount] = {};
    const int64_t end = std::min(rows, begin + kBlockRows);
    for (int64_t r = begin; r < end; ++r) {
      for (int i = 0; i < kCount; ++i) {
        V value;
        Load(x + r * channels + i * kStep, value);
        const V d = value - p[i];
        s[i] += d;
        q[i] += d * d;
      }
    }
    for (int i = 0; i < kCount; ++i) {
      AddLanes<V, T>(s[i], sum + i * kStep);
      AddLanes<V, T>(q[i], square + i * kStep);
    }
  }
}

// Arrays, not vectors, and the compiler makes vectors of them: it has no good code for a choice between two vectors.
template <int64_t kWidth, bool kTake, typename T, typename Gradient>
LOCKSTEP_IN_CLONES void GradientTile(const T* x, Gradient* gradient, const Normalisation<T>& norm, int64_t first, int64_t rows,
                                     int64_t channels, double* sum, double* product) {
  const T *const scale = norm.scale + first, *const offset = norm.offset + first, *const mean = norm.mean + first;
  const T low = norm.low, high = norm.high;
  for (int64_t begin = 0; begin < rows; begin += kBlockRows) {
    T s[kWidth] = {}, p[kWidth] = {};
    const int64_t end = std::min(rows, begin + kBlockRows);
    for (int64_t r = begin; r < end; ++r) {
#pragma GCC ivdep
      for (int64_t c = 0; c < kWidth; ++c) {
        const T value = x[r * channels + first + c];
        const T y = value * scale[c] + offset[c];
        const T g = y > low && y < high ? gradient[r * channels + first + c] : T(0);
        if constexpr (kTake) gradient[r * channels + first + c] = g;
        s[c] += g;
        p[c] += g * (value - mean[c]);
      }
    }
    for (int64_t c = 0; c < kWidth; ++c) sum[first + c] += s[c], product[first + c] += p[c];
  }
}

template <typename T>
LOCKSTEP_IN_CLONES void Sums(const T* x, const T* pivot, int64_t rows, int64_t channels, double* sum, double* square) {
  int64_t c = 0;
  for (; c + 4 * kLanes<T> <= channels; c += 4 * kLanes<T>) SumTile<Lanes<T>, 4>(x + c, pivot + c, rows, channels, sum + c, square + c);
  for (; c + kLanes<T> <= channels; c += kLanes<T>) SumTile<Lanes<T>, 1>(x + c, pivot + c, rows, channels, sum + c, square + c);
  for (; c < channels; ++c) SumTile<T, 1>(x + c, pivot + c, rows, channels, sum + c, square + c);
}

template <bool kTake, typename T, typename Gradient>
LOCKSTEP_IN_CLONES void Gradients(const T* x, Gradient* gradient, const Normalisation<T>& norm, int64_t rows, int64_t channels, double* sum,
                                  double* product) {
  int64_t c = 0;
  for (; c + 4 * kLanes<T> <= channels; c += 4 * kLanes<T>)
    GradientTile<4 * kLanes<T>, kTake>(x, gradient, norm, c, rows, channels, sum, product);
  for (; c + kLanes<T> <= channels; c += kLanes<T>) GradientTile<kLanes<T>, kTake>(x, gradient, norm, c, rows, channels, sum, product);
  for (; c < channels; ++c) GradientTile<1, kTake>(x, gradient, norm, c, rows, channels, sum, product);
}

template <int64_t kWidth, typename T>
LOCKSTEP_IN_CLONES void NormaliseTile(const T* x, const Normalisation<T>& norm, int64_t first, int64_t rows, int64_t channels, T* y) {
  T scale[kWidth], offset[kWidth];
  for (int64_t c = 0; c < kWidth; ++c) scale[c] = norm.scale[first + c], offset[c] = norm.offset[first + c];
  const T low = norm.low, high = norm.high;
  for (int64_t r = 0; r < rows; ++r) {
    const T* const from = x + r * channels + first;
    T* const to = y + r * channels + first;
#pragma GCC ivdep
    for (int64_t c = 0; c < kWidth; ++c) {
      T value = from[c] * scale[c] + offset[c];
      value = value < low ? low : value;
      to[c] = value > high ? high : value;
    }
  }
}

template <int64_t kWidth, typename T>
LOCKSTEP_IN_CLONES void InputTile(const T* x, const T* dy, const Normalisation<T>& norm, const T* a, const T* b, int64_t first,
                                  int64_t rows, int64_t channels, T* dx) {
  T scale[kWidth], offset[kWidth], mean[kWidth], p[kWidth], q[kWidth];
  for (int64_t c = 0; c < kWidth; ++c) {
    scale[c] = norm.scale[first + c], offset[c] = norm.offset[first + c], mean[c] = norm.mean[first + c];
    p[c] = a[first + c], q[c] = b[first + c];
  }
  const T low = norm.low, high = norm.high;
  for (int64_t r = 0; r < rows; ++r) {
    const T *const value = x + r * channels + first, *const gradient = dy + r * channels + first;
    T* const to = dx + r * channels + first;
#pragma GCC ivdep
    for (int64_t c = 0; c < kWidth; ++c) {
      const T y = value[c] * scale[c] + offset[c];
      const T g = y > low && y < high ? gradient[c] : T(0);
      to[c] = scale[c] * (g - p[c] - (value[c] - mean[c]) * q[c]);
    }
  }
}

template <typename T>
LOCKSTEP_IN_CLONES void Rows(const T* x, const Normalisation<T>& norm, int64_t rows, int64_t channels, T* y) {
  int64_t c = 0;
  for (; c + 4 * kLanes<T> <= channels; c += 4 * kLanes<T>) NormaliseTile<4 * kLanes<T>>(x, norm, c, rows, channels, y);
  for (; c + kLanes<T> <= channels; c += kLanes<T>) NormaliseTile<kLanes<T>>(x, norm, c, rows, channels, y);
  for (; c < channels; ++c) NormaliseTile<1>(x, norm, c, rows, channels, y);
}

template <typename T>
LOCKSTEP_IN_CLONES void InputRows(const T* x, const T* dy, const Normalisation<T>& norm, const T* a, const T* b, int64_t rows,
                                  int64_t channels, T* dx) {
  int64_t c = 0;
  for (; c + 4 * kLanes<T> <= channels; c += 4 * kLanes<T>) InputTile<4 * kLanes<T>>(x, dy, norm, a, b, c, rows, channels, dx);
  for (; c + kLanes<T> <= channels; c += kLanes<T>) InputTile<kLanes<T>>(x, dy, norm, a, b, c, rows, channels, dx);
  for (; c < channels; ++c) InputTile<1>(x, dy, norm, a, b, c, rows, channels, dx);
}

}  // namespace

// Clones take no templates: a function for each type.
#define LOCKSTEP_BATCH_NORM_KERNELS(T)                                                                                                   \
  LOCKSTEP_VECTOR_CLONES void SumDeviations(const T* x, const T* pivot, int64_t rows, int64_t channels, double* sum, double* square) {   \
    Sums<T>(x, pivot, rows, channels, sum, square);                                                                                      \
  }                                                                                                                                      \
  LOCKSTEP_VECTOR_CLONES void Normalise(const T* x, const Normalisation<T>& norm, int64_t rows, int64_t channels, T* y) {                \
    Rows<T>(x, norm, rows, channels, y);                                                                                                 \
  }                                                                                                                                      \
  LOCKSTEP_VECTOR_CLONES void SumGradient(const T* x, const T* dy, const Normalisation<T>& norm, int64_t rows, int64_t channels,         \
                                          double* sum, double* product) {                                                                \
    Gradients<false, T>(x, dy, norm, rows, channels, sum, product);                                                                      \
  }                                                                                                                                      \
  LOCKSTEP_VECTOR_CLONES void TakeGradient(const T* x, T* gradient, const Normalisation<T>& norm, int64_t rows, int64_t channels,        \
                                           double* sum, double* product) {                                                               \
    Gradients<true, T>(x, gradient, norm, rows, channels, sum, product);                                                                 \
  }                                                                                                                                      \
  LOCKSTEP_VECTOR_CLONES void InputGradient(const T* x, const T* dy, const Normalisation<T>& norm, const T* a, const T* b, int64_t rows, \
                                            int64_t channels, T* dx) {                                                                   \
    InputRows<T>(x, dy, norm, a, b, rows, channels, dx);                                                                                 \
  }
LOCKSTEP_BATCH_NORM_KERNELS(float)
LOCKSTEP_BATCH_NORM_KERNELS(double)
#undef LOCKSTEP_BATCH_NORM_KERNELS

}  // namespace lockstep
