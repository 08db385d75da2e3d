#include "model/layers/convolution.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <random>
#include <vector>

namespace lockstep {
namespace {

struct Result {
  at::Tensor y, dx, dkernel;
};
Result Convolved(const at::Tensor& x, const at::Tensor& kernel, const ConvolutionPlan& plan, at::ScalarType type) {
  const at::Tensor a = x.to(type, false, true).requires_grad_(true), b = kernel.to(type, false, true).requires_grad_(true);
  const at::Tensor y = Convolve(a, b, {}, plan);
  torch::autograd::backward({(y * at::arange(y.numel()).remainder(7).view(y.sizes())).sum()}, {});
  return {y.detach(), a.grad(), b.grad()};
}

double Difference(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).abs().max() / b.abs().max().clamp_min(1e-30)).item<double>();
}

// A single channel, in or out, with unequal strides is where libtorch's float32 kernels have been seen to go wrong.
TEST(Convolution, Float32IsNearFloat64OnRandomShapes) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const auto draw = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  at::manual_seed(seed);
  for (int i = 0; i < 600; ++i) {
    ConvolutionPlan plan;
    plan.kernel = {draw(1, 5), draw(1, 5)};
    plan.strides = {draw(1, 3), draw(1, 3)};
    plan.same = draw(0, 1) == 1;
    plan.groups = draw(1, 3) == 1 ? 2 : 1;
    const int64_t channels = plan.groups * draw(1, 3), filters = plan.groups * draw(1, 4);
    const at::Tensor x = at::randn({draw(1, 3), draw(plan.kernel.first, 12), draw(plan.kernel.second, 12), channels}, at::kDouble);
    const at::Tensor kernel = at::randn({filters, plan.kernel.first, plan.kernel.second, channels / plan.groups}, at::kDouble);
    SCOPED_TRACE(testing::Message() << "x " << x.sizes() << ", kernel " << kernel.sizes() << ", strides " << plan.strides.first << " "
                                    << plan.strides.second << ", groups " << plan.groups << (plan.same ? ", same" : ""));
    const Result exact = Convolved(x, kernel, plan, at::kDouble), ours = Convolved(x, kernel, plan, at::kFloat);
    EXPECT_LT(Difference(ours.y, exact.y), 1e-4);
    EXPECT_LT(Difference(ours.dx, exact.dx), 1e-4);
    EXPECT_LT(Difference(ours.dkernel, exact.dkernel), 1e-4);
  }
}

}  // namespace
}  // namespace lockstep
