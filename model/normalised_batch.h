#pragma once
// What batch normalisation knows of a batch between forward and backward: scale and offset by channel, and the statistics they come
// from. Shared by the autograd functions that normalise (model/batch_norm, model/depthwise). Belongs to one thread.

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <vector>

#include "model/batch_norm.h"
#include "model/batch_norm_kernels.h"

namespace lockstep {

class NormalisedBatch {
 public:
  // `mean` and `variance`: (C); of the batch `x`, filled here, if `training`; given otherwise. gamma, beta: (C), or undefined.
  NormalisedBatch(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, const at::Tensor& mean, const at::Tensor& variance,
                  bool training, const BatchNormOptions& options);
  // As it was saved: its tensors from `first` on among context.get_saved_variables(), the rest in saved_data.
  static NormalisedBatch FromSaved(torch::autograd::AutogradContext& context, const torch::autograd::variable_list& saved, size_t first);

  // Four tensors to save for backward.
  torch::autograd::variable_list Tensors() const { return {scale_, offset_, mean_, variance_}; }
  void SaveData(torch::autograd::AutogradContext& context) const;

  // Valid as long as this.
  template <typename T>
  Normalisation<T> As() const {
    return {scale_.data_ptr<T>(), offset_.data_ptr<T>(), mean_.data_ptr<T>(), static_cast<T>(options_.low), static_cast<T>(options_.high)};
  }

  // The gradients of gamma and beta, undefined where there is none, and the two terms of InputGradient, from the sums that
  // SumGradient makes over `rows` rows.
  struct Terms {
    at::Tensor dgamma, dbeta, a, b;
  };
  Terms Finish(const std::vector<double>& sum, const std::vector<double>& product, int64_t rows) const;

 private:
  NormalisedBatch() = default;

  at::Tensor scale_, offset_, mean_, variance_;
  BatchNormOptions options_;
  bool training_ = false, has_gamma_ = false, has_beta_ = false;
};

}  // namespace lockstep
