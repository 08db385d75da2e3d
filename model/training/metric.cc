#include "model/training/metric.h"

#include <ATen/ATen.h>

#include "model/training/loss.h"

namespace lockstep {
namespace {

// tf.math.in_top_k: fewer than k outputs are larger than the label's; never where an output is not finite.
at::Tensor InTopK(const at::Tensor& output, const at::Tensor& labels, int64_t k) {
  const at::Tensor larger = (output > output.gather(1, labels.unsqueeze(1))).sum(1);
  return (larger < k).logical_and(output.isfinite().all(1));
}

}  // namespace

at::Tensor Metric::PerSample(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels) const {
  switch (config_.kind) {
    case MetricConfig::Kind::kBinaryAccuracy:
      return ((output > config_.threshold) == DenseLabels(labels, output).to(at::kBool)).to(at::kDouble).mean(1);
    case MetricConfig::Kind::kCategoricalAccuracy: return output.argmax(1) == labels;
    case MetricConfig::Kind::kTopK: return InTopK(output, labels, config_.k);
    case MetricConfig::Kind::kCrossentropy: break;
  }
  return Loss(config_.loss).PerSample(output, logits, labels);
}

MetricSum Metric::Evaluate(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels) const {
  const double sum = PerSample(output, logits, labels).to(at::kDouble).sum().item<double>();
  return {sum, static_cast<double>(output.size(0))};
}

}  // namespace lockstep
