// Layers that move elements and compute nothing: Flatten, Reshape, Permute, RepeatVector, padding, cropping, upsampling.

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

int64_t Elements(const Shape& shape, size_t from) {
  int64_t count = 1;
  for (size_t i = from; i < shape.size(); ++i) {
    if (shape[i] < 0) return -1;
    count *= shape[i];
  }
  return count;
}

class Identity final : public Layer {
 public:
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override { return inputs[0]; }
};

class Flatten final : public Layer {
 public:
  explicit Flatten(LayerOptions& options) { options.Only("data_format", "channels_last"); }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    return Shape{inputs[0][0], Elements(inputs[0], 1)};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    return inputs[0].dim() == 1 ? inputs[0].unsqueeze(1) : inputs[0].flatten(1);
  }
};

class Reshape final : public Layer {
 public:
  explicit Reshape(LayerOptions& options) : target_(options.Ints("target_shape")) {
    if (std::count(target_.begin(), target_.end(), -1) > 1) options.Problem("option target_shape: at most one axis can be -1");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    Shape shape = {inputs[0][0]};
    shape.insert(shape.end(), target_.begin(), target_.end());
    const int64_t have = Elements(inputs[0], 1);
    const auto open = std::find(shape.begin() + 1, shape.end(), -1);
    if (have < 0) return shape;
    if (open != shape.end()) {
      *open = 1;
      const int64_t rest = Elements(shape, 1);
      *open = rest > 0 ? have / rest : 0;
    }
    if (Elements(shape, 1) != have) {
      return absl::InvalidArgumentError(absl::StrCat("cannot make ", ShapeText(inputs[0]), " into ", ShapeText(shape)));
    }
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    std::vector<int64_t> shape = {inputs[0].size(0)};
    shape.insert(shape.end(), target_.begin(), target_.end());
    return inputs[0].reshape(shape);
  }

 private:
  const std::vector<int64_t> target_;
};

class Permute final : public Layer {
 public:
  explicit Permute(LayerOptions& options) : dims_(options.Ints("dims")) {
    std::vector<int64_t> sorted = dims_, expected(dims_.size());
    std::sort(sorted.begin(), sorted.end());
    std::iota(expected.begin(), expected.end(), 1);
    if (sorted != expected) options.Problem("option dims must be a permutation of 1 … n");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, static_cast<int>(dims_.size()) + 1));
    Shape shape = {inputs[0][0]};
    for (const int64_t dim : dims_) shape.push_back(inputs[0][static_cast<size_t>(dim)]);
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    std::vector<int64_t> order = {0};
    order.insert(order.end(), dims_.begin(), dims_.end());
    return inputs[0].permute(order).contiguous();
  }

 private:
  const std::vector<int64_t> dims_;
};

class RepeatVector final : public Layer {
 public:
  explicit RepeatVector(LayerOptions& options) : times_(options.Int("n")) {
    if (times_ < 1) options.Problem("option n must be positive");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 2));
    return Shape{inputs[0][0], times_, inputs[0][1]};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    return inputs[0].unsqueeze(1).expand({-1, times_, -1}).contiguous();
  }

 private:
  const int64_t times_;
};

// ((top, bottom), (left, right)) of ZeroPadding2D and Cropping2D: a number, two numbers, or two pairs.
std::array<int64_t, 4> Borders(LayerOptions& options, const char* key) {
  const Json value = options.Raw(key);
  const auto whole = [](const Json& n) { return n.is_number_integer() && n.get<int64_t>() >= 0 && n.get<int64_t>() < (1 << 20); };
  if (value.is_null()) return {0, 0, 0, 0};
  if (whole(value)) return {value, value, value, value};
  if (value.is_array() && value.size() == 2) {
    if (whole(value[0]) && whole(value[1])) return {value[0], value[0], value[1], value[1]};
    const auto pair = [&](const Json& p) { return p.is_array() && p.size() == 2 && whole(p[0]) && whole(p[1]); };
    if (pair(value[0]) && pair(value[1])) return {value[0][0], value[0][1], value[1][0], value[1][1]};
  }
  options.Problem(absl::StrCat("option ", key, " must be a whole number, two, or two pairs"));
  return {0, 0, 0, 0};
}

// Padding with zeros (sign 1) or cropping (sign −1).
class Border2D final : public Layer {
 public:
  Border2D(LayerOptions& options, const char* key, int sign) : border_(Borders(options, key)), sign_(sign) {
    options.Only("data_format", "channels_last");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    Shape shape = inputs[0];
    if (shape[1] >= 0) shape[1] += sign_ * (border_[0] + border_[1]);
    if (shape[2] >= 0) shape[2] += sign_ * (border_[2] + border_[3]);
    if ((inputs[0][1] >= 0 && shape[1] < 1) || (inputs[0][2] >= 0 && shape[2] < 1)) {
      return absl::InvalidArgumentError(absl::StrCat("crops away all of its input ", ShapeText(inputs[0])));
    }
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    return at::constant_pad_nd(inputs[0], {0, 0, sign_ * border_[2], sign_ * border_[3], sign_ * border_[0], sign_ * border_[1]})
        .contiguous();
  }
  std::optional<std::array<int64_t, 4>> zero_padding() const override { return sign_ > 0 ? std::optional(border_) : std::nullopt; }

 private:
  const std::array<int64_t, 4> border_;
  const int64_t sign_;
};

class UpSampling2D final : public Layer {
 public:
  explicit UpSampling2D(LayerOptions& options)
      : size_(options.Pair("size", 2)), bilinear_(options.Choice("interpolation", {"nearest", "bilinear"}, "nearest") == "bilinear") {
    options.Only("data_format", "channels_last");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    const auto times = [](int64_t extent, int64_t by) { return extent < 0 ? -1 : extent * by; };
    return Shape{inputs[0][0], times(inputs[0][1], size_.first), times(inputs[0][2], size_.second), inputs[0][3]};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    const at::Tensor& x = inputs[0];
    const std::vector<int64_t> size = {x.size(1) * size_.first, x.size(2) * size_.second};
    const at::Tensor first = x.permute({0, 3, 1, 2});
    const at::Tensor y = bilinear_ ? at::upsample_bilinear2d(first, size, false) : at::upsample_nearest2d(first, size);
    return y.permute({0, 2, 3, 1}).contiguous();
  }

 private:
  const std::pair<int64_t, int64_t> size_;
  const bool bilinear_;
};

}  // namespace

void AddReshapingLayers(LayerTable& table) {
  table["Identity"] = [](LayerOptions&) { return std::make_unique<Identity>(); };
  table["Flatten"] = [](LayerOptions& options) { return std::make_unique<Flatten>(options); };
  table["Reshape"] = [](LayerOptions& options) { return std::make_unique<Reshape>(options); };
  table["Permute"] = [](LayerOptions& options) { return std::make_unique<Permute>(options); };
  table["RepeatVector"] = [](LayerOptions& options) { return std::make_unique<RepeatVector>(options); };
  table["ZeroPadding2D"] = [](LayerOptions& options) { return std::make_unique<Border2D>(options, "padding", 1); };
  table["Cropping2D"] = [](LayerOptions& options) { return std::make_unique<Border2D>(options, "cropping", -1); };
  table["UpSampling2D"] = [](LayerOptions& options) { return std::make_unique<UpSampling2D>(options); };
}

}  // namespace lockstep
