// Layers of several inputs: Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate, Dot, CustomScaleLayer.

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/activation.h"
#include "model/clamp.h"
#include "model/layers/registry.h"
#include "model/owned.h"

namespace lockstep {
namespace {

at::Tensor AddTwo(const at::Tensor& a, const at::Tensor& b) {
  // Nobody else has `b`, and nothing that was computed from it keeps it for backward: the sum can take its place.
  const bool owned = IsOwnedAlone(b, 1) && !b.is_view() && !(b.requires_grad() && b.is_leaf());
  if (!owned || b.scalar_type() != a.scalar_type() || b.sizes() != a.sizes()) return a + b;
  at::Tensor sum = b;
  return sum.add_(a);
}
at::Tensor SubtractTwo(const at::Tensor& a, const at::Tensor& b) { return a - b; }
at::Tensor MultiplyTwo(const at::Tensor& a, const at::Tensor& b) { return a * b; }
at::Tensor MaximumOfTwo(const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }
at::Tensor MinimumOfTwo(const at::Tensor& a, const at::Tensor& b) { return at::minimum(a, b); }

// A sum that is ours, and that nobody keeps for backward: it can be clamped where it lies.
at::Tensor Clamped(at::Tensor sum, const std::optional<Activation>& clamp) { return clamp ? ClampInPlace(std::move(sum), *clamp) : sum; }

class Elementwise final : public Layer {
 public:
  using Operation = at::Tensor (*)(const at::Tensor&, const at::Tensor&);
  Elementwise(Operation operation, bool average, bool exactly_two) : operation_(operation), average_(average), two_(exactly_two) {}

  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    if (inputs.size() < 2 || (two_ && inputs.size() != 2)) {
      return absl::InvalidArgumentError(absl::StrCat("takes ", two_ ? "two" : "two or more", " inputs, but is given ", inputs.size()));
    }
    Shape shape = inputs[0];
    for (const Shape& input : inputs.subspan(1)) {
      ASSIGN_OR_RETURN(shape, BroadcastShapes(shape, input));
    }
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    at::Tensor result = inputs[0];
    for (const at::Tensor& input : inputs.subspan(1)) result = operation_(result, input);
    if (average_) result = result / static_cast<double>(inputs.size());
    return Clamped(std::move(result), clamp_);
  }
  // Products, maxima and minima keep their inputs or outputs for backward; sums keep nothing.
  bool Fuse(const Activation& next) override {
    if (!next.IsClamp() || clamp_ || operation_ != AddTwo || average_) return false;
    clamp_ = next;
    return true;
  }

 private:
  const Operation operation_;
  const bool average_, two_;
  std::optional<Activation> clamp_;
};

// first + second · scale. Source: keras.src.applications.inception_resnet_v2.CustomScaleLayer.
class ScaledAdd final : public Layer {
 public:
  explicit ScaledAdd(LayerOptions& options) : scale_(options.Number("scale")) {
    if (!std::isfinite(static_cast<float>(scale_))) options.Problem("option scale must be a number that is finite in float32");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 2, 0));
    // NumPy would set the samples of the one beside an axis of the other's pictures.
    if (inputs[0].size() != inputs[1].size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot join inputs of different ranks, of shapes ", ShapeText(inputs[0]), " and ", ShapeText(inputs[1])));
    }
    return BroadcastShapes(inputs[0], inputs[1]);
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    // Two roundings, as in Keras: at::add with an alpha makes but one of them.
    at::Tensor sum = inputs[1] * scale_;
    if (at::infer_size(sum.sizes(), inputs[0].sizes()) == sum.sizes()) {
      sum.add_(inputs[0]);
    } else {
      sum = inputs[0] + sum;
    }
    return Clamped(std::move(sum), clamp_);
  }
  bool Fuse(const Activation& next) override {
    if (!next.IsClamp() || clamp_) return false;
    clamp_ = next;
    return true;
  }

 private:
  const double scale_;
  std::optional<Activation> clamp_;
};

class Concatenate final : public Layer {
 public:
  explicit Concatenate(LayerOptions& options) : axis_(options.Int("axis", -1)) {}
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    if (inputs.empty()) return absl::InvalidArgumentError("takes at least one input");
    ASSIGN_OR_RETURN(const int axis, FrontAxis(axis_, inputs[0].size()));
    Shape shape = inputs[0];
    for (const Shape& input : inputs.subspan(1)) {
      if (input.size() != shape.size()) return absl::InvalidArgumentError("cannot join inputs of different ranks");
      for (size_t i = 0; i < shape.size(); ++i) {
        if (static_cast<int>(i) == axis) {
          shape[i] = shape[i] < 0 || input[i] < 0 ? -1 : shape[i] + input[i];
        } else if (shape[i] != input[i] && shape[i] >= 0 && input[i] >= 0) {
          return absl::InvalidArgumentError(absl::StrCat("cannot join ", ShapeText(inputs[0]), " and ", ShapeText(input)));
        }
      }
    }
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    return at::cat(std::vector<at::Tensor>(inputs.begin(), inputs.end()), axis_);
  }

 private:
  const int64_t axis_;
};

// keras.layers.Dot: sums over one axis of each of two inputs, sample by sample; what is left of the first comes first.
class Dot final : public Layer {
 public:
  explicit Dot(LayerOptions& options) : axes_(options.Ints("axes")), normalize_(options.Flag("normalize", false)) {
    if (axes_.size() == 1) axes_.push_back(axes_[0]);
    if (axes_.size() != 2 || axes_[0] == 0 || axes_[1] == 0) {
      options.Problem("option axes must be one or two axes other than the batch's");
    }
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 2, 0));
    Shape shape = {inputs[0].empty() ? -1 : inputs[0][0]};
    int64_t extents[2];
    for (size_t side = 0; side < 2; ++side) {
      ASSIGN_OR_RETURN(const int front, FrontAxis(axes_[side], inputs[side].size()));
      if (front == 0) return absl::InvalidArgumentError("cannot sum over the batch");
      extents[side] = inputs[side][static_cast<size_t>(front)];
      for (size_t i = 1; i < inputs[side].size(); ++i) {
        if (static_cast<int>(i) != front) shape.push_back(inputs[side][i]);
      }
    }
    if (extents[0] != extents[1] && extents[0] >= 0 && extents[1] >= 0) {
      return absl::InvalidArgumentError(absl::StrCat("cannot sum over axes of ", extents[0], " and ", extents[1], " places"));
    }
    if (shape.size() == 1) shape.push_back(1);
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    std::vector<int64_t> shape = {inputs[0].size(0)};
    const auto last = [&](size_t side) {
      const at::Tensor x = inputs[side].movedim(axes_[side], -1);
      for (int64_t i = 1; i + 1 < x.dim(); ++i) shape.push_back(x.size(i));
      const at::Tensor rows = x.reshape({x.size(0), -1, x.size(-1)});
      if (!normalize_) return rows;
      return rows * at::rsqrt(at::clamp_min(at::square(rows).sum(-1, true), 1e-12));
    };
    const at::Tensor first = last(0), second = last(1);
    if (shape.size() == 1) shape.push_back(1);
    return at::bmm(first, second.transpose(1, 2)).reshape(shape);
  }

 private:
  std::vector<int64_t> axes_;
  const bool normalize_;
};

}  // namespace

void AddMergingLayers(LayerTable& table) {
  const auto add = [&table](const char* name, Elementwise::Operation operation, bool average, bool two) {
    table[name] = [=](LayerOptions&) { return std::make_unique<Elementwise>(operation, average, two); };
  };
  add("Add", AddTwo, false, false);
  add("Subtract", SubtractTwo, false, true);
  add("Multiply", MultiplyTwo, false, false);
  add("Average", AddTwo, true, false);
  add("Maximum", MaximumOfTwo, false, false);
  add("Minimum", MinimumOfTwo, false, false);
  table["keras.src.applications.inception_resnet_v2.CustomScaleLayer"] = [](LayerOptions& options) {
    return std::make_unique<ScaledAdd>(options);
  };
  table["Concatenate"] = [](LayerOptions& options) { return std::make_unique<Concatenate>(options); };
  table["Dot"] = [](LayerOptions& options) { return std::make_unique<Dot>(options); };
}

}  // namespace lockstep
