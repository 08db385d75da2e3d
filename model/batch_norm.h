#pragma once
// Batch normalisation over all axes but the last, with a clamp (ReLU, ReLU6) in the same pass: one read for the statistics, one read
// and one write for the result, and nothing kept for backward but the input, whose gradient takes the place of the result's where
// nobody else holds that. On one thread.
//
// y = clamp(x · s + (beta − mean · s)), s = gamma / sqrt(variance + epsilon), as keras.layers.BatchNormalization computes it, with
// the biased variance. Sums are taken of deviations from each channel's first value, in T over blocks of 256 rows and in
// float64 over the blocks, in an order that depends on the shape alone.

#include <ATen/core/Tensor.h>

namespace lockstep {

struct BatchNormOptions {
  double epsilon = 1e-3;
  // The result is clamped to [low, high]; infinities: not at all. The gradient is 0 at and beyond the ends.
  double low = 0, high = 0;
};

// A batch normalisation that is computed as part of what follows it: gamma and beta, (C) or undefined; the moving statistics, used
// unless `training`.
struct NormalisationBefore {
  at::Tensor gamma, beta, moving_mean, moving_variance;
  bool training = false;
  BatchNormOptions options;
};

struct BatchNormResult {
  at::Tensor y;
  at::Tensor mean, variance;  // of the batch, detached; undefined with given statistics
};

// `x`: (…, C), contiguous, float or double. gamma and beta: (C), or undefined. Gradients flow to x, gamma and beta.
BatchNormResult BatchNormTraining(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, const BatchNormOptions& options);
// With given statistics, through which no gradient flows.
at::Tensor BatchNormInference(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, const at::Tensor& mean,
                              const at::Tensor& variance, const BatchNormOptions& options);

}  // namespace lockstep
