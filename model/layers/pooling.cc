// Pooling of images in (N, H, W, C) order: maximum, average (whose `same` padding does not count), global and adaptive.

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/layers/convolution.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

at::Tensor ChannelsFirst(const at::Tensor& x) { return x.permute({0, 3, 1, 2}); }
at::Tensor ChannelsLast(const at::Tensor& x) { return x.permute({0, 2, 3, 1}).contiguous(); }

class Pooling2D final : public Layer {
 public:
  Pooling2D(LayerOptions& options, bool maximum) : maximum_(maximum) {
    plan_.kernel = options.Pair("pool_size", 2);
    plan_.strides = plan_.kernel;
    if (!options.Raw("strides").is_null()) plan_.strides = options.Pair("strides", 1);
    plan_.same = options.Choice("padding", {"valid", "same"}, "valid") == "same";
    options.Only("data_format", "channels_last");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    const auto [height, width] = plan_.OutputSize(inputs[0][1], inputs[0][2]);
    if (height == 0 || width == 0)
      return absl::InvalidArgumentError(absl::StrCat("its window is larger than its input ", ShapeText(inputs[0])));
    return Shape{inputs[0][0], height, width, inputs[0][3]};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    const at::Tensor& x = inputs[0];
    Padding rows, columns;
    if (plan_.same) {
      rows = SamePadding(x.size(1), plan_.kernel.first, plan_.strides.first, 1);
      columns = SamePadding(x.size(2), plan_.kernel.second, plan_.strides.second, 1);
    }
    const bool padded = rows.before + rows.after + columns.before + columns.after > 0;
    const auto pad = [&](const at::Tensor& tensor, double value) {
      return padded ? at::constant_pad_nd(tensor, {0, 0, columns.before, columns.after, rows.before, rows.after}, value) : tensor;
    };
    const std::vector<int64_t> kernel = {plan_.kernel.first, plan_.kernel.second};
    const std::vector<int64_t> strides = {plan_.strides.first, plan_.strides.second};
    if (maximum_) {
      const at::Tensor input = pad(x, -std::numeric_limits<double>::infinity());
      return ChannelsLast(at::max_pool2d(ChannelsFirst(input), kernel, strides));
    }
    at::Tensor mean = at::avg_pool2d(ChannelsFirst(pad(x, 0)), kernel, strides);
    if (!padded) return ChannelsLast(mean);
    // What was padded does not count: divide by the share of each window that lies within the picture.
    const at::NoGradGuard no_grad;
    const at::Tensor share = at::avg_pool2d(ChannelsFirst(pad(at::ones({1, x.size(1), x.size(2), 1}, x.options()), 0)), kernel, strides);
    const at::AutoGradMode gradients(true);
    return ChannelsLast(mean / share);
  }

 private:
  const bool maximum_;
  ConvolutionPlan plan_;
};

class GlobalPooling2D final : public Layer {
 public:
  GlobalPooling2D(LayerOptions& options, bool maximum) : maximum_(maximum), keep_(options.Flag("keepdims", false)) {
    options.Only("data_format", "channels_last");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    return keep_ ? Shape{inputs[0][0], 1, 1, inputs[0][3]} : Shape{inputs[0][0], inputs[0][3]};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    return maximum_ ? at::amax(inputs[0], {1, 2}, keep_) : at::mean(inputs[0], {1, 2}, keep_);
  }

 private:
  const bool maximum_, keep_;
};

class AdaptivePooling2D final : public Layer {
 public:
  AdaptivePooling2D(LayerOptions& options, bool maximum) : maximum_(maximum), size_(options.Pair("output_size", 1)) {
    options.Only("data_format", "channels_last");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    return Shape{inputs[0][0], size_.first, size_.second, inputs[0][3]};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    const at::Tensor x = ChannelsFirst(inputs[0]);
    if (maximum_) return ChannelsLast(std::get<0>(at::adaptive_max_pool2d(x, {size_.first, size_.second})));
    return ChannelsLast(at::adaptive_avg_pool2d(x, {size_.first, size_.second}));
  }

 private:
  const bool maximum_;
  const std::pair<int64_t, int64_t> size_;
};

}  // namespace

void AddPoolingLayers(LayerTable& table) {
  for (const bool maximum : {false, true}) {
    const std::string kind = maximum ? "Max" : "Average";
    table[kind + "Pooling2D"] = [=](LayerOptions& options) { return std::make_unique<Pooling2D>(options, maximum); };
    table["Global" + kind + "Pooling2D"] = [=](LayerOptions& options) { return std::make_unique<GlobalPooling2D>(options, maximum); };
    table["Adaptive" + kind + "Pooling2D"] = [=](LayerOptions& options) { return std::make_unique<AdaptivePooling2D>(options, maximum); };
  }
}

}  // namespace lockstep
