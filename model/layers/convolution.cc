#include "model/layers/convolution.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/activation.h"
#include "model/depthwise.h"
#include "model/layers/convolution_made.h"
#include "model/layers/registry.h"

namespace lockstep {

Padding SamePadding(int64_t size, int64_t kernel, int64_t stride, int64_t dilation) {
  const int64_t out = (size + stride - 1) / stride;
  const int64_t total = std::max<int64_t>((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0);
  const int64_t before = total / 2;
  return {before, total - before};
}

namespace {

int64_t OutputExtent(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, bool same) {
  if (size < 0) return -1;
  if (same) return (size + stride - 1) / stride;
  const int64_t reach = (kernel - 1) * dilation + 1;
  return size < reach ? 0 : (size - reach) / stride + 1;
}

// The way back from ChannelsFirst.
at::Tensor ChannelsLast(const at::Tensor& x) {
  return x.size(1) == 1 ? x.reshape({x.size(0), x.size(2), x.size(3), 1}).contiguous() : x.permute({0, 2, 3, 1}).contiguous();
}

absl::StatusOr<Shape> ImageShape(absl::Span<const Shape> inputs, std::pair<int64_t, int64_t> size, int64_t channels) {
  if (size.first == 0 || size.second == 0)
    return absl::InvalidArgumentError(absl::StrCat("its kernel is larger than its input ", ShapeText(inputs[0])));
  return Shape{inputs[0][0], size.first, size.second, channels};
}

absl::StatusOr<int64_t> Channels(absl::Span<const Shape> inputs) {
  RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
  if (inputs[0][3] <= 0)
    return absl::InvalidArgumentError(absl::StrCat("needs to know the number of channels of its input ", ShapeText(inputs[0])));
  return inputs[0][3];
}

// Of rows and of columns.
std::pair<Padding, Padding> PaddingOf(const at::Tensor& x, const ConvolutionPlan& plan) {
  if (!plan.same) return {plan.rows, plan.columns};
  return {SamePadding(x.size(1), plan.kernel.first, plan.strides.first, plan.dilation.first),
          SamePadding(x.size(2), plan.kernel.second, plan.strides.second, plan.dilation.second)};
}

DepthwisePlan Depthwise(const at::Tensor& x, const ConvolutionPlan& plan) {
  const auto [rows, columns] = PaddingOf(x, plan);
  const auto extent = [](int64_t size, const Padding& padding, int64_t kernel, int64_t stride, int64_t dilation) {
    return OutputExtent(size + padding.before + padding.after, kernel, stride, dilation, /*same=*/false);
  };
  return {plan.strides,
          plan.dilation,
          {rows.before, columns.before},
          {extent(x.size(1), rows, plan.kernel.first, plan.strides.first, plan.dilation.first),
           extent(x.size(2), columns, plan.kernel.second, plan.strides.second, plan.dilation.second)}};
}

// Options that all convolutions share.
ConvolutionPlan ReadPlan(LayerOptions& options) {
  ConvolutionPlan plan;
  plan.kernel = options.Pair("kernel_size", 1);
  plan.strides = options.Pair("strides", 1);
  plan.dilation = options.Pair("dilation_rate", 1);
  plan.same = options.Choice("padding", {"valid", "same"}, "valid") == "same";
  options.Only("data_format", "channels_last");
  options.Only("activity_regularizer", nullptr);
  options.Only("bias_constraint", nullptr);
  options.Only("lora_rank", nullptr);
  options.Only("lora_alpha", nullptr);
  options.Only("quantization_config", nullptr);
  options.Skip({"bias_initializer"});
  return plan;
}

class ConvolutionLayer : public Layer {
 public:
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor bias = use_bias_ ? frame.variable(1) : at::Tensor();
    return Activate(activation_, Convolve(inputs[0], frame.variable(0), bias, plan_, frame.output), frame);
  }

  const Activation* activation() const override { return &activation_; }
  bool FusePadding(const std::array<int64_t, 4>& border) override {
    if (plan_.same) return false;
    plan_.rows = {border[0], border[1]};
    plan_.columns = {border[2], border[3]};
    return true;
  }

 protected:
  explicit ConvolutionLayer(LayerOptions& options)
      : plan_(ReadPlan(options)),
        use_bias_(options.Flag("use_bias", true)),
        activation_(ReadActivation(options, "activation")),
        bias_regularizer_(options.Raw("bias_regularizer")) {}

  void AddBias(int64_t channels, std::vector<VariableSpec>& variables) const {
    if (use_bias_) variables.push_back({"bias", {channels}, bias_regularizer_});
  }

  ConvolutionPlan plan_;
  const bool use_bias_;
  const Activation activation_;
  const Json bias_regularizer_;
};

class Conv2D final : public ConvolutionLayer {
 public:
  explicit Conv2D(LayerOptions& options)
      : ConvolutionLayer(options), filters_(options.Int("filters")), regularizer_(options.Raw("kernel_regularizer")) {
    plan_.groups = options.Int("groups", 1);
    options.Only("kernel_constraint", nullptr);
    options.Skip({"kernel_initializer"});
    if (filters_ < 1 || plan_.groups < 1 || filters_ % plan_.groups != 0)
      options.Problem("options filters and groups: filters must be a multiple of groups, both positive");
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    ASSIGN_OR_RETURN(const int64_t channels, Channels(inputs));
    if (channels % plan_.groups != 0)
      return absl::InvalidArgumentError(
          absl::StrCat("its ", channels, " input channels are not a multiple of its ", plan_.groups, " groups"));
    std::vector<VariableSpec> variables = {
        {"kernel", {plan_.kernel.first, plan_.kernel.second, channels / plan_.groups, filters_}, regularizer_, KernelLayout::kConvolution}};
    AddBias(filters_, variables);
    return variables;
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    return ImageShape(inputs, plan_.OutputSize(inputs[0][1], inputs[0][2]), filters_);
  }

  // An activation needs the values; a grouped convolution may be another kernel's.
  bool takes_output() const override { return activation_.kind == Activation::Kind::kLinear && plan_.groups == 1; }

 private:
  const int64_t filters_;
  const Json regularizer_;
};

class DepthwiseConv2D final : public ConvolutionLayer {
 public:
  explicit DepthwiseConv2D(LayerOptions& options)
      : ConvolutionLayer(options), multiplier_(options.Int("depth_multiplier", 1)), regularizer_(options.Raw("depthwise_regularizer")) {
    options.Only("depthwise_constraint", nullptr);
    options.Skip({"depthwise_initializer"});
    if (multiplier_ < 1) options.Problem("option depth_multiplier must be positive");
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    ASSIGN_OR_RETURN(const int64_t channels, Channels(inputs));
    plan_.groups = channels;
    std::vector<VariableSpec> variables = {
        {"kernel", {plan_.kernel.first, plan_.kernel.second, channels, multiplier_}, regularizer_, KernelLayout::kDepthwise}};
    AddBias(channels * multiplier_, variables);
    return variables;
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    return ImageShape(inputs, plan_.OutputSize(inputs[0][1], inputs[0][2]), plan_.groups * multiplier_);
  }
  bool takes_normalised() const override { return multiplier_ == 1; }
  BatchNormResult ForwardNormalised(const at::Tensor& x, const NormalisationBefore& norm, const Frame& frame) const override {
    BatchNormResult result = NormalisedDepthwiseConvolution(x, norm, frame.variable(0), Depthwise(x, plan_));
    if (use_bias_) result.y = result.y + frame.variable(1);
    result.y = Activate(activation_, result.y, frame);
    return result;
  }

 private:
  const int64_t multiplier_;
  const Json regularizer_;
};

class SeparableConv2D final : public ConvolutionLayer {
 public:
  explicit SeparableConv2D(LayerOptions& options)
      : ConvolutionLayer(options),
        filters_(options.Int("filters")),
        multiplier_(options.Int("depth_multiplier", 1)),
        depthwise_regularizer_(options.Raw("depthwise_regularizer")),
        pointwise_regularizer_(options.Raw("pointwise_regularizer")) {
    options.Only("depthwise_constraint", nullptr);
    options.Only("pointwise_constraint", nullptr);
    options.Skip({"depthwise_initializer", "pointwise_initializer"});
    if (multiplier_ < 1 || filters_ < 1) options.Problem("options filters and depth_multiplier must be positive");
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    ASSIGN_OR_RETURN(const int64_t channels, Channels(inputs));
    plan_.groups = channels;
    std::vector<VariableSpec> variables = {
        {"depthwise_kernel",
         {plan_.kernel.first, plan_.kernel.second, channels, multiplier_},
         depthwise_regularizer_,
         KernelLayout::kDepthwise},
        {"pointwise_kernel", {1, 1, channels * multiplier_, filters_}, pointwise_regularizer_, KernelLayout::kConvolution}};
    AddBias(filters_, variables);
    return variables;
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    return ImageShape(inputs, plan_.OutputSize(inputs[0][1], inputs[0][2]), filters_);
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    return Pointwise(Convolve(inputs[0], frame.variable(0), at::Tensor(), plan_), frame);
  }
  bool takes_normalised() const override { return multiplier_ == 1; }
  BatchNormResult ForwardNormalised(const at::Tensor& x, const NormalisationBefore& norm, const Frame& frame) const override {
    BatchNormResult result = NormalisedDepthwiseConvolution(x, norm, frame.variable(0), Depthwise(x, plan_));
    result.y = Pointwise(result.y, frame);
    return result;
  }

 private:
  at::Tensor Pointwise(const at::Tensor& x, const Frame& frame) const {
    return Activate(activation_, Convolve(x, frame.variable(1), use_bias_ ? frame.variable(2) : at::Tensor(), ConvolutionPlan{}), frame);
  }

  const int64_t filters_, multiplier_;
  const Json depthwise_regularizer_, pointwise_regularizer_;
};

// The gradient of a convolution with respect to its input, which is what TensorFlow's conv2d_transpose computes: the padding is
// that of the convolution that would lead from the output back to the input.
class Conv2DTranspose final : public ConvolutionLayer {
 public:
  explicit Conv2DTranspose(LayerOptions& options)
      : ConvolutionLayer(options), filters_(options.Int("filters")), regularizer_(options.Raw("kernel_regularizer")) {
    const std::vector<int64_t> padding = options.Ints("output_padding");
    if (!padding.empty()) output_padding_ = {padding[0], padding.back()};
    options.Only("kernel_constraint", nullptr);
    options.Only("groups", 1);
    options.Skip({"kernel_initializer"});
    if (filters_ < 1) options.Problem("option filters must be positive");
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    ASSIGN_OR_RETURN(const int64_t channels, Channels(inputs));
    std::vector<VariableSpec> variables = {
        {"kernel", {plan_.kernel.first, plan_.kernel.second, filters_, channels}, regularizer_, KernelLayout::kConvolution}};
    AddBias(filters_, variables);
    return variables;
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    return ImageShape(inputs, {Extent(0, inputs[0][1]), Extent(1, inputs[0][2])}, filters_);
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    at::Tensor whole = at::convolution(ChannelsFirst(x), ChannelsFirst(frame.variable(0)), {}, {plan_.strides.first, plan_.strides.second},
                                       {0, 0}, {plan_.dilation.first, plan_.dilation.second}, /*transposed=*/true, {0, 0}, 1);
    const auto [top, bottom] = Crop(0, x.size(1), whole.size(2));
    const auto [left, right] = Crop(1, x.size(2), whole.size(3));
    at::Tensor y = ChannelsLast(at::constant_pad_nd(whole, {-left, -right, -top, -bottom}));
    if (use_bias_) y = y + frame.variable(1);
    return Activate(activation_, y, frame);
  }
  bool FusePadding(const std::array<int64_t, 4>&) override { return false; }

 private:
  static int64_t Of(const std::pair<int64_t, int64_t>& pair, int axis) { return axis == 0 ? pair.first : pair.second; }
  int64_t Reach(int axis) const { return (Of(plan_.kernel, axis) - 1) * Of(plan_.dilation, axis) + 1; }
  // keras/src/backend/common/backend_utils.py: _get_output_shape_given_tf_padding.
  int64_t Extent(int axis, int64_t size) const {
    if (size < 0) return -1;
    const int64_t stride = Of(plan_.strides, axis), reach = Reach(axis);
    if (plan_.same) return output_padding_ ? (size - 1) * stride + reach % 2 + Of(*output_padding_, axis) : size * stride;
    return (size - 1) * stride + reach + (output_padding_ ? Of(*output_padding_, axis) : std::max(reach, stride) - reach);
  }
  // How much of the whole transposed convolution lies before and after the output; negative where zeros are added.
  std::pair<int64_t, int64_t> Crop(int axis, int64_t size, int64_t whole) const {
    const int64_t out = Extent(axis, size);
    const int64_t before =
        plan_.same ? SamePadding(out, Of(plan_.kernel, axis), Of(plan_.strides, axis), Of(plan_.dilation, axis)).before : 0;
    return {before, whole - before - out};
  }

  const int64_t filters_;
  const Json regularizer_;
  std::optional<std::pair<int64_t, int64_t>> output_padding_;
};

}  // namespace

std::pair<int64_t, int64_t> ConvolutionPlan::OutputSize(int64_t height, int64_t width) const {
  return {OutputExtent(height, kernel.first, strides.first, dilation.first, same),
          OutputExtent(width, kernel.second, strides.second, dilation.second, same)};
}

at::Tensor Convolve(const at::Tensor& x, const at::Tensor& kernel, const at::Tensor& bias, const ConvolutionPlan& plan,
                    const at::Tensor& output) {
  if (plan.groups == x.size(3) && kernel.size(0) == x.size(3)) {
    const at::Tensor y = DepthwiseConvolution(x.contiguous(), kernel, Depthwise(x, plan));
    return bias.defined() ? y + bias : y;
  }
  auto [rows, columns] = PaddingOf(x, plan);
  at::Tensor input = x;
  if (rows.before != rows.after || columns.before != columns.after) {
    input = at::constant_pad_nd(x, {0, 0, columns.before, columns.after, rows.before, rows.after});
    rows = columns = {};
  }
  const ConvolutionShape shape{
      {plan.strides.first, plan.strides.second}, {rows.before, columns.before}, {plan.dilation.first, plan.dilation.second}, plan.groups};
  if (output.defined()) return ConvolutionMade(ChannelsFirst(input), ChannelsFirst(kernel), bias, shape, output);
  const std::optional<at::Tensor> optional_bias = bias.defined() ? std::optional<at::Tensor>(bias) : std::nullopt;
  return ChannelsLast(at::convolution(ChannelsFirst(input), ChannelsFirst(kernel), optional_bias, shape.strides, shape.padding,
                                      shape.dilation, /*transposed=*/false, {0, 0}, shape.groups));
}

void AddConvolutionLayers(LayerTable& table) {
  table["Conv2D"] = [](LayerOptions& options) { return std::make_unique<Conv2D>(options); };
  table["DepthwiseConv2D"] = [](LayerOptions& options) { return std::make_unique<DepthwiseConv2D>(options); };
  table["SeparableConv2D"] = [](LayerOptions& options) { return std::make_unique<SeparableConv2D>(options); };
  table["Conv2DTranspose"] = [](LayerOptions& options) { return std::make_unique<Conv2DTranspose>(options); };
}

}  // namespace lockstep
