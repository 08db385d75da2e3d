#include "model/depthwise.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <random>
#include <vector>

namespace lockstep {
namespace {

struct Shape {
  int64_t images, height, width, channels, kernel_height, kernel_width;
  DepthwisePlan plan;
  int64_t below, right;  // rows and columns of zeros after the image
};

at::Tensor Random(at::IntArrayRef shape, at::ScalarType type) {
  return at::randn(shape, at::TensorOptions().dtype(at::kDouble)).to(type).requires_grad_(true);
}

// libtorch's own convolution of an image that was padded by a copy.
at::Tensor Expected(const at::Tensor& x, const at::Tensor& kernel, const Shape& s) {
  const at::Tensor padded = at::constant_pad_nd(x, {0, 0, s.plan.before.second, s.right, s.plan.before.first, s.below});
  return at::convolution(padded.permute({0, 3, 1, 2}), kernel.permute({0, 3, 1, 2}), {}, {s.plan.strides.first, s.plan.strides.second},
                         {0, 0}, {s.plan.dilation.first, s.plan.dilation.second}, false, {0, 0}, s.channels)
      .permute({0, 2, 3, 1});
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b.to(at::kDouble)).abs().max() / b.abs().max().to(at::kDouble).clamp_min(1e-30)).item<double>();
}

// Against float64 also where `type` is float32: libtorch's convolution of a single channel has been seen to be wrong there.
void ExpectSame(const Shape& s, at::ScalarType type, double tolerance) {
  const at::Tensor x = Random({s.images, s.height, s.width, s.channels}, type);
  const at::Tensor kernel = Random({s.channels, s.kernel_height, s.kernel_width, 1}, type);
  const at::Tensor dy = at::randn({s.images, s.plan.output.first, s.plan.output.second, s.channels}, x.options());
  const at::Tensor x64 = x.detach().to(at::kDouble).requires_grad_(true), kernel64 = kernel.detach().to(at::kDouble).requires_grad_(true);
  const at::Tensor expected = Expected(x64, kernel64, s);
  torch::autograd::backward({expected}, {dy.to(at::kDouble)});
  const at::Tensor y = DepthwiseConvolution(x, kernel, s.plan);
  torch::autograd::backward({y}, {dy});
  ASSERT_EQ(y.sizes(), expected.sizes());
  EXPECT_LT(Difference(y, expected), tolerance);
  EXPECT_LT(Difference(x.grad(), x64.grad()), tolerance);
  EXPECT_LT(Difference(kernel.grad(), kernel64.grad()), tolerance);
}

// Everything that a training step takes from a normalisation with a convolution behind it.
struct Step {
  BatchNormResult result;
  std::vector<at::Tensor> gradients;
};
template <typename Forward>
Step Run(const std::vector<at::Tensor>& inputs, const at::Tensor& dy, Forward&& forward) {
  Step step{forward(), {}};
  torch::autograd::backward({step.result.y}, {dy});
  for (const at::Tensor& input : inputs) {
    step.gradients.push_back(input.grad().clone());
    input.mutable_grad().reset();
  }
  return step;
}

// The fused pass against its two halves.
void ExpectSameNormalised(const Shape& s, bool training, at::ScalarType type, double tolerance) {
  const at::Tensor x = Random({s.images, s.height, s.width, s.channels}, type);
  const at::Tensor kernel = Random({s.channels, s.kernel_height, s.kernel_width, 1}, type);
  const at::Tensor gamma = Random({s.channels}, type), beta = Random({s.channels}, type);
  const at::Tensor mean = at::randn({s.channels}, x.options()), variance = at::rand({s.channels}, x.options()) + 0.5;
  const NormalisationBefore norm{gamma, beta, mean, variance, training, {1e-3, 0, 1.5}};
  const at::Tensor dy = at::randn({s.images, s.plan.output.first, s.plan.output.second, s.channels}, x.options());
  const std::vector<at::Tensor> inputs = {x, kernel, gamma, beta};
  const Step halves = Run(inputs, dy, [&] {
    BatchNormResult first = training ? BatchNormTraining(x, gamma, beta, norm.options)
                                     : BatchNormResult{BatchNormInference(x, gamma, beta, mean, variance, norm.options), {}, {}};
    first.y = DepthwiseConvolution(first.y, kernel, s.plan);
    return first;
  });
  const Step fused = Run(inputs, dy, [&] { return NormalisedDepthwiseConvolution(x, norm, kernel, s.plan); });
  EXPECT_LT(Difference(fused.result.y, halves.result.y), tolerance);
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(Difference(fused.gradients[i], halves.gradients[i]), tolerance) << i;
  ASSERT_EQ(fused.result.mean.defined(), training);
  if (!training) return;
  EXPECT_TRUE(fused.result.mean.equal(halves.result.mean));
  EXPECT_TRUE(fused.result.variance.equal(halves.result.variance));
}

TEST(Depthwise, AgreesWithLibtorchOnRandomShapesAndWithItsHalvesWhenFused) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const auto draw = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  at::manual_seed(seed);
  for (int i = 0; i < 200; ++i) {
    Shape s{draw(1, 3), draw(1, 12), draw(1, 12), draw(1, 100), draw(1, 5), draw(1, 5), {}, draw(0, 4), draw(0, 4)};
    s.plan.strides = {draw(1, 3), draw(1, 3)};
    s.plan.dilation = {draw(1, 2), draw(1, 2)};
    s.plan.before = {draw(0, 4), draw(0, 4)};
    const int64_t height = s.height + s.plan.before.first + s.below - (s.kernel_height - 1) * s.plan.dilation.first;
    const int64_t width = s.width + s.plan.before.second + s.right - (s.kernel_width - 1) * s.plan.dilation.second;
    if (height < 1 || width < 1) continue;
    s.plan.output = {(height - 1) / s.plan.strides.first + 1, (width - 1) / s.plan.strides.second + 1};
    SCOPED_TRACE(testing::Message() << s.images << "x" << s.height << "x" << s.width << "x" << s.channels << ", kernel " << s.kernel_height
                                    << "x" << s.kernel_width << ", output " << s.plan.output.first << "x" << s.plan.output.second);
    ExpectSame(s, at::kDouble, 1e-13);
    ExpectSame(s, at::kFloat, 2e-5);
    if (s.images * s.height * s.width < 4) continue;  // a variance of next to nothing
    ExpectSameNormalised(s, true, at::kDouble, 1e-9);
    ExpectSameNormalised(s, false, at::kDouble, 1e-12);
    ExpectSameNormalised(s, i % 2 == 0, at::kFloat, 1e-2);
  }
}

TEST(Depthwise, GradientsOnlyForThoseThatWantThem) {
  const at::Tensor x = at::rand({1, 4, 4, 3}), kernel = at::rand({3, 3, 3, 1}).requires_grad_(true);
  torch::autograd::backward({DepthwiseConvolution(x, kernel, {{1, 1}, {1, 1}, {1, 1}, {4, 4}}).sum()}, {});
  EXPECT_FALSE(x.grad().defined());
  EXPECT_TRUE(kernel.grad().defined());
}

}  // namespace
}  // namespace lockstep
