// Dense: a linear map of the last axis.

#include <ATen/ATen.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/activation.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

class Dense final : public Layer {
 public:
  explicit Dense(LayerOptions& options)
      : units_(options.Int("units")),
        use_bias_(options.Flag("use_bias", true)),
        activation_(ReadActivation(options, "activation")),
        kernel_regularizer_(options.Raw("kernel_regularizer")),
        bias_regularizer_(options.Raw("bias_regularizer")) {
    for (const char* key :
         {"activity_regularizer", "kernel_constraint", "bias_constraint", "lora_rank", "lora_alpha", "quantization_config"}) {
      options.Only(key, nullptr);
    }
    options.Skip({"kernel_initializer", "bias_initializer"});
    if (units_ < 1) options.Problem("option units must be positive");
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    if (inputs[0].size() < 2 || inputs[0].back() < 1) {
      return absl::InvalidArgumentError(absl::StrCat("needs to know the last axis of its input ", ShapeText(inputs[0])));
    }
    std::vector<VariableSpec> variables = {{"kernel", {inputs[0].back(), units_}, kernel_regularizer_}};
    if (use_bias_) variables.push_back({"bias", {units_}, bias_regularizer_});
    return variables;
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    Shape shape = inputs[0];
    shape.back() = units_;
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    if (use_bias_ && x.dim() == 2) return Activate(activation_, at::addmm(frame.variable(1), x, frame.variable(0)), frame);
    const at::Tensor y = at::matmul(x, frame.variable(0));
    return Activate(activation_, use_bias_ ? y + frame.variable(1) : y, frame);
  }
  const Activation* activation() const override { return &activation_; }

 private:
  const int64_t units_;
  const bool use_bias_;
  const Activation activation_;
  const Json kernel_regularizer_, bias_regularizer_;
};

}  // namespace

void AddDenseLayers(LayerTable& table) {
  table["Dense"] = [](LayerOptions& options) { return std::make_unique<Dense>(options); };
}

}  // namespace lockstep
