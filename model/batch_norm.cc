#include "model/batch_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

namespace lockstep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kTile = 64;        // channels at a time: their sums stay in registers
constexpr int64_t kBlockRows = 256;  // rows summed in T before float64 takes over

// One clone for each vector width; lanes are independent, so that all give the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LOCKSTEP_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LOCKSTEP_VECTOR_CLONES
#endif

// Sums of (x − pivot) and its square over rows × [first, first + width) of x, which has `channels` columns.
template <typename T>
inline __attribute__((always_inline)) void SumTile(const T* x, const T* pivot, int64_t rows, int64_t channels, int64_t width, double* sum,
                                                   double* square) {
  for (int64_t begin = 0; begin < rows; begin += kBlockRows) {
    T s[kTile] = {}, q[kTile] = {};
    const int64_t end = std::min(rows, begin + kBlockRows);
    if (width == kTile) {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = x + r * channels;
        for (int64_t c = 0; c < kTile; ++c) {
          const T d = row[c] - pivot[c];
          s[c] += d;
          q[c] += d * d;
        }
      }
    } else {
      for (int64_t r = begin; r < end; ++r) {
        const T* row = x + r * channels;
        for (int64_t c = 0; c < width; ++c) {
          const T d = row[c] - pivot[c];
          s[c] += d;
          q[c] += d * d;
        }
      }
    }
    for (int64_t c = 0; c < width; ++c) sum[c] += s[c], square[c] += q[c];
  }
}

template <typename T>
inline __attribute__((always_inline)) void NormaliseRows(const T* x, const T* scale, const T* offset, T low, T high, int64_t rows,
                                                         int64_t channels, T* y) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < channels; ++c) {
      T value = x[r * channels + c] * scale[c] + offset[c];
      value = value < low ? low : value;
      y[r * channels + c] = value > high ? high : value;
    }
  }
}

// Of the gradient before the clamp: its sum, and its sum times (x − mean).
template <typename T>
inline __attribute__((always_inline)) void SumGradientTile(const T* x, const T* dy, const T* scale, const T* offset, const T* mean, T low,
                                                           T high, int64_t rows, int64_t channels, int64_t width, double* sum,
                                                           double* product) {
  for (int64_t begin = 0; begin < rows; begin += kBlockRows) {
    T s[kTile] = {}, p[kTile] = {};
    const int64_t end = std::min(rows, begin + kBlockRows);
    const auto add = [&](int64_t r, int64_t c) __attribute__((always_inline)) {
      const T value = x[r * channels + c];
      const T y = value * scale[c] + offset[c];
      const T g = y > low && y < high ? dy[r * channels + c] : T(0);
      s[c] += g;
      p[c] += g * (value - mean[c]);
    };
    if (width == kTile) {
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t c = 0; c < kTile; ++c) add(r, c);
      }
    } else {
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t c = 0; c < width; ++c) add(r, c);
      }
    }
    for (int64_t c = 0; c < width; ++c) sum[c] += s[c], product[c] += p[c];
  }
}

// dx = scale · (g − a − (x − mean) · b), channel by channel.
template <typename T>
inline __attribute__((always_inline)) void InputGradientRows(const T* x, const T* dy, const T* scale, const T* offset, const T* mean,
                                                             const T* a, const T* b, T low, T high, int64_t rows, int64_t channels, T* dx) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < channels; ++c) {
      const T value = x[r * channels + c];
      const T y = value * scale[c] + offset[c];
      const T g = y > low && y < high ? dy[r * channels + c] : T(0);
      dx[r * channels + c] = scale[c] * (g - a[c] - (value - mean[c]) * b[c]);
    }
  }
}

// target_clones takes no templates: a function for each type.
#define LOCKSTEP_BATCH_NORM_KERNELS(T)                                                                                              \
  LOCKSTEP_VECTOR_CLONES void Sum(const T* x, const T* pivot, int64_t rows, int64_t channels, int64_t width, double* sum,           \
                                  double* square) {                                                                                 \
    SumTile<T>(x, pivot, rows, channels, width, sum, square);                                                                       \
  }                                                                                                                                 \
  LOCKSTEP_VECTOR_CLONES void Normalise(const T* x, const T* scale, const T* offset, T low, T high, int64_t rows, int64_t channels, \
                                        T* y) {                                                                                     \
    NormaliseRows<T>(x, scale, offset, low, high, rows, channels, y);                                                               \
  }                                                                                                                                 \
  LOCKSTEP_VECTOR_CLONES void SumGradient(const T* x, const T* dy, const T* scale, const T* offset, const T* mean, T low, T high,   \
                                          int64_t rows, int64_t channels, int64_t width, double* sum, double* product) {            \
    SumGradientTile<T>(x, dy, scale, offset, mean, low, high, rows, channels, width, sum, product);                                 \
  }                                                                                                                                 \
  LOCKSTEP_VECTOR_CLONES void InputGradient(const T* x, const T* dy, const T* scale, const T* offset, const T* mean, const T* a,    \
                                            const T* b, T low, T high, int64_t rows, int64_t channels, T* dx) {                     \
    InputGradientRows<T>(x, dy, scale, offset, mean, a, b, low, high, rows, channels, dx);                                          \
  }
LOCKSTEP_BATCH_NORM_KERNELS(float)
LOCKSTEP_BATCH_NORM_KERNELS(double)
#undef LOCKSTEP_BATCH_NORM_KERNELS

struct Rows {
  int64_t rows, channels;
};
Rows RowsOf(const at::Tensor& x) {
  const int64_t channels = x.size(-1);
  return {channels == 0 ? 0 : x.numel() / channels, channels};
}

// scale = gamma / sqrt(variance + epsilon), offset = beta − mean · scale.
template <typename T>
void ScaleAndOffset(const at::Tensor& gamma, const at::Tensor& beta, const T* mean, const T* variance, double epsilon, int64_t channels,
                    T* scale, T* offset) {
  const T* g = gamma.defined() ? gamma.data_ptr<T>() : nullptr;
  const T* b = beta.defined() ? beta.data_ptr<T>() : nullptr;
  for (int64_t c = 0; c < channels; ++c) {
    const T inverse = T(1) / std::sqrt(variance[c] + static_cast<T>(epsilon));
    scale[c] = g != nullptr ? inverse * g[c] : inverse;
    offset[c] = (b != nullptr ? b[c] : T(0)) - mean[c] * scale[c];
  }
}

template <typename T>
void BatchStatistics(const T* x, Rows shape, T* mean, T* variance) {
  std::vector<double> sum(static_cast<size_t>(shape.channels)), square(sum.size());
  for (int64_t first = 0; first < shape.channels; first += kTile) {
    const int64_t width = std::min(kTile, shape.channels - first);
    Sum(x + first, x + first, shape.rows, shape.channels, width, sum.data() + first, square.data() + first);
  }
  for (int64_t c = 0; c < shape.channels; ++c) {
    const double d = sum[static_cast<size_t>(c)] / static_cast<double>(shape.rows);
    mean[c] = static_cast<T>(x[c] + d);
    variance[c] = static_cast<T>(std::max(square[static_cast<size_t>(c)] / static_cast<double>(shape.rows) - d * d, 0.0));
  }
}

class BatchNorm final : public torch::autograd::Function<BatchNorm> {
 public:
  // `mean` and `variance`: of the batch, filled here, if `training`; given otherwise.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& maybe_gamma,
                            const std::optional<at::Tensor>& maybe_beta, const at::Tensor& mean, const at::Tensor& variance, bool training,
                            double epsilon, double low, double high) {
    const at::Tensor gamma = maybe_gamma.value_or(at::Tensor()), beta = maybe_beta.value_or(at::Tensor());
    at::Tensor y = at::empty_like(x);
    const Rows shape = RowsOf(x);
    at::Tensor scale = at::empty_like(mean), offset = at::empty_like(mean);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "batch_norm", [&] {
      if (training) BatchStatistics(x.data_ptr<scalar_t>(), shape, mean.data_ptr<scalar_t>(), variance.data_ptr<scalar_t>());
      ScaleAndOffset<scalar_t>(gamma, beta, mean.data_ptr<scalar_t>(), variance.data_ptr<scalar_t>(), epsilon, shape.channels,
                               scale.data_ptr<scalar_t>(), offset.data_ptr<scalar_t>());
      Normalise(x.data_ptr<scalar_t>(), scale.data_ptr<scalar_t>(), offset.data_ptr<scalar_t>(), static_cast<scalar_t>(low),
                static_cast<scalar_t>(high), shape.rows, shape.channels, y.data_ptr<scalar_t>());
    });
    context->save_for_backward({x, scale, offset, mean, variance});
    context->saved_data["training"] = training;
    context->saved_data["epsilon"] = epsilon;
    context->saved_data["low"] = low;
    context->saved_data["high"] = high;
    context->saved_data["gamma"] = gamma.defined();
    context->saved_data["beta"] = beta.defined();
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[1], &offset = saved[2], &mean = saved[3], &variance = saved[4];
    const at::Tensor dy = gradients[0].contiguous();
    const bool training = context->saved_data["training"].toBool();
    const double epsilon = context->saved_data["epsilon"].toDouble();
    at::Tensor dx = at::empty_like(x), dgamma = at::empty_like(mean), dbeta = at::empty_like(mean);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "batch_norm_backward", [&] {
      Backward<scalar_t>(x, dy, scale, offset, mean, variance, training, epsilon,
                         static_cast<scalar_t>(context->saved_data["low"].toDouble()),
                         static_cast<scalar_t>(context->saved_data["high"].toDouble()), dx, dgamma, dbeta);
    });
    const bool gamma = context->saved_data["gamma"].toBool(), beta = context->saved_data["beta"].toBool();
    return {dx, gamma ? dgamma : at::Tensor(), beta ? dbeta : at::Tensor(), {}, {}, {}, {}, {}, {}};
  }

 private:
  template <typename T>
  static void Backward(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& scale, const at::Tensor& offset, const at::Tensor& mean,
                       const at::Tensor& variance, bool training, double epsilon, T low, T high, const at::Tensor& dx,
                       const at::Tensor& dgamma, const at::Tensor& dbeta) {
    const Rows shape = RowsOf(x);
    const auto channels = static_cast<size_t>(shape.channels);
    std::vector<double> sum(channels), product(channels);
    const T *s = scale.data_ptr<T>(), *o = offset.data_ptr<T>(), *m = mean.data_ptr<T>(), *v = variance.data_ptr<T>();
    for (int64_t first = 0; first < shape.channels; first += kTile) {
      const int64_t width = std::min(kTile, shape.channels - first);
      SumGradient(x.data_ptr<T>() + first, dy.data_ptr<T>() + first, s + first, o + first, m + first, low, high, shape.rows, shape.channels,
                  width, sum.data() + first, product.data() + first);
    }
    std::vector<T> a(channels), b(channels);
    for (size_t c = 0; c < channels; ++c) {
      const double inverse_square = 1.0 / (static_cast<double>(v[c]) + epsilon);
      dgamma.data_ptr<T>()[c] = static_cast<T>(product[c] * std::sqrt(inverse_square));
      dbeta.data_ptr<T>()[c] = static_cast<T>(sum[c]);
      if (!training) continue;
      a[c] = static_cast<T>(sum[c] / static_cast<double>(shape.rows));
      b[c] = static_cast<T>(product[c] * inverse_square / static_cast<double>(shape.rows));
    }
    InputGradient(x.data_ptr<T>(), dy.data_ptr<T>(), s, o, m, a.data(), b.data(), low, high, shape.rows, shape.channels, dx.data_ptr<T>());
  }
};

// Custom functions take no undefined tensors, but empty options.
std::optional<at::Tensor> Optional(const at::Tensor& tensor) { return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt; }

}  // namespace

BatchNormResult BatchNormTraining(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, const BatchNormOptions& options) {
  BatchNormResult result;
  result.mean = at::empty({x.size(-1)}, x.options());
  result.variance = at::empty({x.size(-1)}, x.options());
  result.y = BatchNorm::apply(x.contiguous(), Optional(gamma), Optional(beta), result.mean, result.variance, true, options.epsilon,
                              options.low, options.high);
  return result;
}

at::Tensor BatchNormInference(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, const at::Tensor& mean,
                              const at::Tensor& variance, const BatchNormOptions& options) {
  return BatchNorm::apply(x.contiguous(), Optional(gamma), Optional(beta), mean, variance, false, options.epsilon, options.low,
                          options.high);
}

}  // namespace lockstep
