// Layers of several inputs: Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate, Dot.

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/activation.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

// As NumPy broadcasts; −1 stays unknown unless the other says more than 1.
absl::StatusOr<Shape> Broadcast(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  for (size_t i = 0; i < shorter.size(); ++i) {
    int64_t& extent = result[result.size() - shorter.size() + i];
    const int64_t other = shorter[i];
    if (extent == other || other == 1) continue;
    if (extent == 1 || (extent < 0 && other > 1)) {
      extent = other;
    } else if (other >= 0) {
      return absl::InvalidArgumentError(absl::StrCat("cannot join inputs of shapes ", ShapeText(a), " and ", ShapeText(b)));
    }
  }
  return result;
}

at::Tensor AddTwo(const at::Tensor& a, const at::Tensor& b) { return a + b; }
at::Tensor SubtractTwo(const at::Tensor& a, const at::Tensor& b) { return a - b; }
at::Tensor MultiplyTwo(const at::Tensor& a, const at::Tensor& b) { return a * b; }
at::Tensor MaximumOfTwo(const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }
at::Tensor MinimumOfTwo(const at::Tensor& a, const at::Tensor& b) { return at::minimum(a, b); }

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
      ASSIGN_OR_RETURN(shape, Broadcast(shape, input));
    }
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    at::Tensor result = inputs[0];
    for (const at::Tensor& input : inputs.subspan(1)) result = operation_(result, input);
    if (average_) result = result / static_cast<double>(inputs.size());
    if (!clamp_) return result;
    // The sum is ours and nobody keeps it for backward: it can be clamped where it lies.
    if (std::isinf(clamp_->max_value)) return at::relu_(result);
    return at::hardtanh_(result, 0.0, clamp_->max_value);
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

// Of two (batch, features) inputs along axis 1, which is what classifiers use.
class Dot final : public Layer {
 public:
  explicit Dot(LayerOptions& options) : normalize_(options.Flag("normalize", false)) {
    const std::vector<int64_t> axes = options.Ints("axes");
    if (std::any_of(axes.begin(), axes.end(), [](int64_t axis) { return axis != 1 && axis != -1; })) {
      options.Problem("option axes: only the last axis of (batch, features) inputs is supported");
    }
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 2, 2));
    if (inputs[0][1] != inputs[1][1]) return absl::InvalidArgumentError("its inputs have different numbers of features");
    return Shape{inputs[0][0], 1};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    const auto unit = [](const at::Tensor& x) { return x * at::rsqrt(at::clamp_min(at::square(x).sum(1, true), 1e-12)); };
    if (normalize_) return (unit(inputs[0]) * unit(inputs[1])).sum(1, true);
    return (inputs[0] * inputs[1]).sum(1, true);
  }

 private:
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
  table["Concatenate"] = [](LayerOptions& options) { return std::make_unique<Concatenate>(options); };
  table["Dot"] = [](LayerOptions& options) { return std::make_unique<Dot>(options); };
}

}  // namespace lockstep
