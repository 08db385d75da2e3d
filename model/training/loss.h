#pragma once
// Keras's losses for pictures, sample by sample, with its numerics: from logits where the model ends in softmax or sigmoid (Keras finds
// them behind the probabilities, whichever of the two and whatever the loss), else from clipped probabilities
// (keras/src/backend/tensorflow/nn.py of Keras 3.15). Immutable, thread-safe.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/training/loss_config.h"

namespace lockstep {

class Loss {
 public:
  explicit Loss(const LossConfig& config) : config_(config) {}

  // `output`: (N, units), what the model put out; `logits`: what went into its softmax or sigmoid, undefined where it has none;
  // `labels`: (N) class numbers, int64. Returns (N), of the output's type, differentiable.
  at::Tensor PerSample(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels) const;

  // What the sum over `samples` samples is divided by.
  double Divisor(int64_t samples) const { return config_.reduction == LossConfig::Reduction::kSum ? 1 : static_cast<double>(samples); }

 private:
  const LossConfig config_;
};

// (N, units) of 0 and 1, of the type of `like`: one-hot, or the class number itself where there is one unit.
at::Tensor DenseLabels(const at::Tensor& labels, const at::Tensor& like);

}  // namespace lockstep
