// What is written over in backward: never what others hold, and with the same bits as where nothing is.
#include "model/clamp.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "model/batch_norm.h"
#include "model/owned.h"

namespace lockstep {
namespace {

at::Tensor Leaf(const std::vector<int64_t>& shape) { return at::randn(shape).set_requires_grad(true); }

at::Tensor GradientOf(const at::Tensor& y, const at::Tensor& leaf, const at::Tensor& dy, bool keep_graph = false) {
  return torch::autograd::grad({y}, {leaf}, {dy}, keep_graph)[0];
}

TEST(Clamp, IsReluAndItsBoundedKinForwardAndBackward) {
  for (const double high : {std::numeric_limits<double>::infinity(), 0.5}) {
    const Activation clamp = Activation::Relu(0, high, 0);
    const at::Tensor a = Leaf({4, 3, 3, 5}), b = at::randn({4, 3, 3, 5}), dy = at::randn({4, 3, 3, 5});
    const at::Tensor plain = high < 1 ? at::hardtanh(a + b, 0, high) : at::relu(a + b);
    const at::Tensor over = ClampInPlace(a + b, clamp);
    EXPECT_TRUE(at::equal(plain, over));
    EXPECT_TRUE(at::equal(GradientOf(plain, a, dy), GradientOf(over, a, dy.clone())));
    EXPECT_TRUE(at::equal(plain, ClampInPlace(a.detach() + b, clamp)));
  }
}

TEST(Clamp, WritesOverNoGradientThatIsHeldElsewhere) {
  const at::Tensor a = Leaf({64}), dy = at::randn({64}), before = dy.clone();
  const at::Tensor y = ClampInPlace(a + 1, Activation::Relu(0, {}, 0));
  const at::Tensor value = y.detach().clone();
  GradientOf(y, a, dy);
  EXPECT_TRUE(at::equal(dy, before));
  EXPECT_TRUE(at::equal(y, value));
}

TEST(Clamp, WritesOverItsOwnResultWhereNobodyElseHasIt) {
  const at::Tensor a = Leaf({64}), dy = at::randn({64});
  const at::Tensor sum = [&] { return ClampInPlace(a + 1, Activation::Relu(0, {}, 0)); }();
  const void* const place = sum.data_ptr();
  const at::Tensor y = at::hstack({sum});
  const_cast<at::Tensor&>(sum).reset();
  EXPECT_EQ(GradientOf(y, a, dy).data_ptr(), place);
}

at::Tensor Normalise(const at::Tensor& x) {
  return BatchNormTraining(x, at::ones({5}), at::zeros({5}), {1e-3, 0, std::numeric_limits<double>::infinity()}).y;
}

TEST(BatchNorm, WritesOverItsInputOnlyWhereNobodyElseHasIt) {
  const at::Tensor leaf = Leaf({40, 5}), dy = at::randn({40, 5}), before = dy.clone();
  const at::Tensor held = leaf * 2, value = held.detach().clone();
  const at::Tensor expected = GradientOf(Normalise(held), leaf, dy);
  EXPECT_TRUE(at::equal(held, value)) << "it is held here";
  EXPECT_TRUE(at::equal(dy, before));
  EXPECT_TRUE(at::equal(GradientOf(Normalise(leaf * 2), leaf, dy), expected)) << "nobody else has it";
  at::Tensor alone = leaf + 1;
  const void* const place = alone.data_ptr();
  const at::Tensor y = Normalise(std::exchange(alone, {}));
  EXPECT_EQ(GradientOf(y, leaf, dy).data_ptr(), place) << "nobody else has it: its gradient lies there";
  // A view of what nobody else has, as convolutions make them.
  EXPECT_TRUE(at::equal(GradientOf(Normalise((leaf.t() * 2).t()), leaf, dy), expected));
  EXPECT_TRUE(at::equal(dy, before));
}

TEST(BatchNorm, ABackwardPassThatIsNotTheLastWritesOverNothing) {
  const at::Tensor leaf = Leaf({40, 5}), dy = at::randn({40, 5});
  const at::Tensor y = Normalise(leaf * 2);
  const at::Tensor first = GradientOf(y, leaf, dy, /*keep_graph=*/true);
  EXPECT_TRUE(at::equal(GradientOf(y, leaf, dy), first));
}

TEST(IsOwnedAlone, CountsHandlesOthersAndWhatItIsAViewOf) {
  at::Tensor x = at::randn({4, 6});
  EXPECT_TRUE(IsOwnedAlone(x, 1));
  const at::Tensor same = x;
  EXPECT_FALSE(IsOwnedAlone(x, 1));
  EXPECT_TRUE(IsOwnedAlone(x, 2));
  const at::Tensor beside = x.detach();
  EXPECT_FALSE(IsOwnedAlone(x, 2));
  EXPECT_TRUE(IsOwnedAlone(x, 2, 1));
  const at::Tensor base = Leaf({6, 4}) * 1;
  EXPECT_FALSE(IsOwnedAlone(base.t().t(), 1)) << "its base is held here";
  const at::Tensor view = (Leaf({6, 4}) * 1).view({4, 6});
  EXPECT_TRUE(IsOwnedAlone(view, 1));
  const at::Tensor turned = (Leaf({6, 4}) * 1).t();
  EXPECT_FALSE(IsOwnedAlone(turned, 1)) << "not one row after another";
}

}  // namespace
}  // namespace lockstep
