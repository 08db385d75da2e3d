#include "model/normalised_batch.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace lockstep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

template <typename T>
void BatchStatistics(const at::Tensor& x, T* mean, T* variance) {
  const int64_t channels = x.size(-1), rows = channels == 0 ? 0 : x.numel() / channels;
  const T* const values = x.data_ptr<T>();
  std::vector<double> sum(static_cast<size_t>(channels)), square(sum.size());
  SumDeviations(values, values, rows, channels, sum.data(), square.data());
  for (int64_t c = 0; c < channels; ++c) {
    const double d = sum[static_cast<size_t>(c)] / static_cast<double>(rows);
    mean[c] = static_cast<T>(values[c] + d);
    variance[c] = static_cast<T>(std::max(square[static_cast<size_t>(c)] / static_cast<double>(rows) - d * d, 0.0));
  }
}

}  // namespace

NormalisedBatch::NormalisedBatch(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, const at::Tensor& mean,
                                 const at::Tensor& variance, bool training, const BatchNormOptions& options)
    : scale_(at::empty_like(mean)),
      offset_(at::empty_like(mean)),
      mean_(mean),
      variance_(variance),
      options_(options),
      training_(training),
      has_gamma_(gamma.defined()),
      has_beta_(beta.defined()) {
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "batch_norm", [&] {
    using T = scalar_t;
    if (training) BatchStatistics<T>(x, mean.data_ptr<T>(), variance.data_ptr<T>());
    T *const scale = scale_.data_ptr<T>(), *const offset = offset_.data_ptr<T>();
    const T *const m = mean.data_ptr<T>(), *const v = variance.data_ptr<T>();
    for (int64_t c = 0; c < mean.numel(); ++c) {
      scale[c] = T(1) / std::sqrt(v[c] + static_cast<T>(options.epsilon));
      if (has_gamma_) scale[c] *= gamma.data_ptr<T>()[c];
      offset[c] = (has_beta_ ? beta.data_ptr<T>()[c] : T(0)) - m[c] * scale[c];
    }
  });
}

void NormalisedBatch::SaveData(AutogradContext& context) const {
  context.saved_data["limits"] = std::vector<double>{options_.epsilon, options_.low, options_.high};
  context.saved_data["flags"] = std::vector<bool>{training_, has_gamma_, has_beta_};
}

NormalisedBatch NormalisedBatch::FromSaved(AutogradContext& context, const variable_list& saved, size_t first) {
  NormalisedBatch batch;
  batch.scale_ = saved[first];
  batch.offset_ = saved[first + 1];
  batch.mean_ = saved[first + 2];
  batch.variance_ = saved[first + 3];
  const std::vector<double> limits = context.saved_data["limits"].toDoubleVector();
  batch.options_ = {limits[0], limits[1], limits[2]};
  const c10::List<bool> flags = context.saved_data["flags"].toBoolList();
  batch.training_ = flags.get(0);
  batch.has_gamma_ = flags.get(1);
  batch.has_beta_ = flags.get(2);
  return batch;
}

NormalisedBatch::Terms NormalisedBatch::Finish(const std::vector<double>& sum, const std::vector<double>& product, int64_t rows) const {
  Terms terms{at::empty_like(mean_), at::empty_like(mean_), at::zeros_like(mean_), at::zeros_like(mean_)};
  AT_DISPATCH_FLOATING_TYPES(mean_.scalar_type(), "batch_norm_backward", [&] {
    using T = scalar_t;
    for (size_t c = 0; c < sum.size(); ++c) {
      const double inverse_square = 1.0 / (static_cast<double>(variance_.data_ptr<T>()[c]) + options_.epsilon);
      terms.dgamma.data_ptr<T>()[c] = static_cast<T>(product[c] * std::sqrt(inverse_square));
      terms.dbeta.data_ptr<T>()[c] = static_cast<T>(sum[c]);
      if (!training_) continue;
      terms.a.data_ptr<T>()[c] = static_cast<T>(sum[c] / static_cast<double>(rows));
      terms.b.data_ptr<T>()[c] = static_cast<T>(product[c] * inverse_square / static_cast<double>(rows));
    }
  });
  if (!has_gamma_) terms.dgamma.reset();
  if (!has_beta_) terms.dbeta.reset();
  return terms;
}

}  // namespace lockstep
