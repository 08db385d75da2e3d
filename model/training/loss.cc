#include "model/training/loss.h"

#include <ATen/ATen.h>

namespace lockstep {
namespace {

constexpr double kEpsilon = 1e-7;  // keras.backend.epsilon()

at::Tensor Clipped(const at::Tensor& probabilities) { return probabilities.clamp(kEpsilon, 1 - kEpsilon); }

at::Tensor Smoothed(const at::Tensor& dense, double smoothing, double level) {
  return smoothing == 0 ? dense : dense * (1 - smoothing) + level;
}

at::Tensor Sparse(const at::Tensor& x, bool from_logits, const at::Tensor& labels) {
  // Keras normalises the logarithms of clipped probabilities once more.
  const at::Tensor logits = from_logits ? x : Clipped(x).log();
  return -logits.log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1);
}

at::Tensor Categorical(const at::Tensor& x, bool from_logits, const at::Tensor& labels, double smoothing) {
  const at::Tensor target = Smoothed(DenseLabels(labels, x), smoothing, smoothing / static_cast<double>(x.size(1)));
  const at::Tensor logarithms = from_logits ? x.log_softmax(1) : Clipped(x / x.sum(1, /*keepdim=*/true)).log();
  return -(target * logarithms).sum(1);
}

at::Tensor Binary(const at::Tensor& x, bool from_logits, const at::Tensor& labels, double smoothing) {
  const at::Tensor target = Smoothed(DenseLabels(labels, x), smoothing, 0.5 * smoothing);
  if (from_logits) return at::binary_cross_entropy_with_logits(x, target, {}, {}, at::Reduction::None).mean(1);
  const at::Tensor p = Clipped(x);
  return -(target * p.log() + (1 - target) * (1 - p).log()).mean(1);
}

}  // namespace

at::Tensor DenseLabels(const at::Tensor& labels, const at::Tensor& like) {
  if (like.size(1) == 1) return labels.unsqueeze(1).to(like.scalar_type());
  return at::zeros({labels.size(0), like.size(1)}, like.options().requires_grad(false)).scatter_(1, labels.unsqueeze(1), 1);
}

at::Tensor Loss::PerSample(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels) const {
  const bool from_logits = logits.defined() || config_.from_logits;
  const at::Tensor& x = logits.defined() ? logits : output;
  at::Tensor loss;
  switch (config_.kind) {
    case CrossentropyKind::kSparseCategorical: loss = Sparse(x, from_logits, labels); break;
    case CrossentropyKind::kCategorical: loss = Categorical(x, from_logits, labels, config_.label_smoothing); break;
    case CrossentropyKind::kBinary: loss = Binary(x, from_logits, labels, config_.label_smoothing); break;
  }
  return config_.weight == 1 ? loss : loss * config_.weight;
}

}  // namespace lockstep
