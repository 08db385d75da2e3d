// Losses and metrics: laws. Figures against Keras are tests/parity/loss_test.py.
#include "model/training/loss.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>

#include "model/training/metric.h"

namespace lockstep {
namespace {

at::Tensor Labels(std::vector<int64_t> labels) { return at::tensor(labels, at::TensorOptions().dtype(at::kLong)); }

at::Tensor Matrix(std::vector<double> values, int64_t columns) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).view({-1, columns});
}

LossConfig Config(CrossentropyKind kind, bool from_logits = false, double smoothing = 0) {
  LossConfig config;
  config.kind = kind;
  config.from_logits = from_logits;
  config.label_smoothing = smoothing;
  return config;
}

double Evaluate(const MetricConfig& config, const at::Tensor& output, const at::Tensor& labels) {
  const MetricSum sum = Metric(config).Evaluate(output, {}, labels);
  EXPECT_EQ(sum.count, static_cast<double>(output.size(0)));
  return sum.sum;
}

TEST(Loss, SparseAndDenseAgreeOnLogits) {
  const at::Tensor logits = Matrix({1, -2, 0.5, 3, 30, -40}, 3), labels = Labels({2, 1});
  const at::Tensor sparse = Loss(Config(CrossentropyKind::kSparseCategorical, true)).PerSample(logits, {}, labels);
  const at::Tensor dense = Loss(Config(CrossentropyKind::kCategorical, true)).PerSample(logits, {}, labels);
  EXPECT_TRUE(at::allclose(sparse, dense, 1e-12));
}

TEST(Loss, LogitsBehindTheOutputAreUsedWhateverTheOutput) {
  // Far from each other: the probability of the label is below what clipping keeps.
  const at::Tensor logits = Matrix({60, 0}, 2), labels = Labels({1});
  const Loss loss(Config(CrossentropyKind::kSparseCategorical));
  EXPECT_NEAR(loss.PerSample(logits.softmax(1), logits, labels).item<double>(), 60, 1e-9);
  EXPECT_NEAR(loss.PerSample(logits.softmax(1), {}, labels).item<double>(), -std::log(1e-7), 1e-5);
}

TEST(Loss, SamplesDoNotKnowOfEachOther) {
  const at::Tensor logits = at::randn({12, 5}, at::TensorOptions().dtype(at::kDouble)), labels = at::arange(12).remainder(5);
  for (const auto kind : {CrossentropyKind::kSparseCategorical, CrossentropyKind::kCategorical, CrossentropyKind::kBinary}) {
    const Loss loss(Config(kind, true, 0.1));
    const at::Tensor whole = loss.PerSample(logits, {}, labels);
    for (int64_t i = 0; i < 12; i += 3) {
      EXPECT_TRUE(at::equal(whole.narrow(0, i, 3), loss.PerSample(logits.narrow(0, i, 3), {}, labels.narrow(0, i, 3))));
    }
  }
}

TEST(Loss, GradientOfSmoothedCrossentropyIsProbabilityLessTarget) {
  const at::Tensor logits = Matrix({1, 2, -1, 0.5}, 4).set_requires_grad(true), labels = Labels({1});
  const at::Tensor loss = Loss(Config(CrossentropyKind::kCategorical, true, 0.2)).PerSample(logits, {}, labels).sum();
  torch::autograd::backward({loss}, {});
  const at::Tensor target = Matrix({0.05, 0.85, 0.05, 0.05}, 4);
  EXPECT_TRUE(at::allclose(logits.grad(), logits.detach().softmax(1) - target, 0, 1e-12));
}

TEST(Loss, BinaryIsFiniteAtTheEnds) {
  const at::Tensor output = Matrix({0, 1, 1, 0}, 1), labels = Labels({0, 1, 0, 1});
  const at::Tensor loss = Loss(Config(CrossentropyKind::kBinary)).PerSample(output, {}, labels);
  EXPECT_TRUE(loss.isfinite().all().item<bool>());
  EXPECT_NEAR(loss[0].item<double>(), 1e-7, 1e-9);
  EXPECT_NEAR(loss[2].item<double>(), -std::log(1e-7), 1e-6);
}

TEST(Loss, WeightAndReductionAreThoseOfCompile) {
  LossConfig config = Config(CrossentropyKind::kSparseCategorical, true);
  config.weight = 3;
  const at::Tensor logits = Matrix({0, 0}, 2);
  EXPECT_NEAR(Loss(config).PerSample(logits, {}, Labels({0})).item<double>(), 3 * std::log(2), 1e-12);
  EXPECT_EQ(Loss(config).Divisor(8), 8);
  config.reduction = LossConfig::Reduction::kSum;
  EXPECT_EQ(Loss(config).Divisor(8), 1);
}

TEST(Metric, TheFirstOfEqualOutputsIsTheAnswer) {
  MetricConfig accuracy;
  EXPECT_EQ(Evaluate(accuracy, Matrix({1, 1, 0, 0, 2, 2}, 3), Labels({0, 1})), 2);
  EXPECT_EQ(Evaluate(accuracy, Matrix({1, 1, 0, 0, 2, 2}, 3), Labels({1, 2})), 0);
}

TEST(Metric, TopKCountsLargerOutputsAndNothingThatIsNotFinite) {
  MetricConfig top;
  top.kind = MetricConfig::Kind::kTopK;
  top.k = 2;
  const at::Tensor output = Matrix({4, 3, 2, 1, 5, 5, 5, 5}, 4);
  EXPECT_EQ(Evaluate(top, output, Labels({1, 3})), 2) << "equal ones are not larger";
  EXPECT_EQ(Evaluate(top, output, Labels({2, 0})), 1);
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(Evaluate(top, Matrix({infinity, 1, 0, NAN, 1, 0}, 3), Labels({0, 1})), 0);
  top.k = 9;
  EXPECT_EQ(Evaluate(top, output, Labels({2, 0})), 2);
}

TEST(Metric, BinaryAccuracyHasAThreshold) {
  MetricConfig binary;
  binary.kind = MetricConfig::Kind::kBinaryAccuracy;
  EXPECT_EQ(Evaluate(binary, Matrix({0.5, 0.51, 0.2}, 1), Labels({0, 1, 1})), 2);
  binary.threshold = 0.1;
  EXPECT_EQ(Evaluate(binary, Matrix({0.5, 0.51, 0.2}, 1), Labels({0, 1, 1})), 2);
  binary.threshold = 0.5;
  EXPECT_DOUBLE_EQ(Evaluate(binary, Matrix({0.9, 0.9, 0.1, 0.1}, 4), Labels({0})), 0.75) << "of dense labels, a mean over the units";
}

}  // namespace
}  // namespace lockstep
