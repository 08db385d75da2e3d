#pragma once
// Keras's metrics for classes: means over samples, as sums that can be added up over batches and replicas. Immutable, thread-safe.

#include <ATen/core/Tensor.h>

#include <string>

#include "model/training/loss_config.h"

namespace lockstep {

struct MetricSum {
  double sum = 0;
  double count = 0;  // samples
};

class Metric {
 public:
  explicit Metric(const MetricConfig& config) : config_(config) {}

  // As Keras prints it.
  const std::string& name() const { return config_.name; }

  // Arguments as for Loss::PerSample.
  MetricSum Evaluate(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels) const;

 private:
  at::Tensor PerSample(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels) const;

  const MetricConfig config_;
};

}  // namespace lockstep
