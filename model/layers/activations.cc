// Activation layers: Activation, ReLU, LeakyReLU, ELU, Softmax, and PReLU, whose slopes are learnt.

#include <ATen/ATen.h>

#include "base/status_macros.h"
#include "model/activation.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

class ActivationLayer final : public Layer {
 public:
  explicit ActivationLayer(Activation activation) : activation_(activation) {}
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override { return Activate(activation_, inputs[0], frame); }
  const Activation* activation() const override { return &activation_; }

 private:
  const Activation activation_;
};

class PRelu final : public Layer {
 public:
  explicit PRelu(LayerOptions& options) : shared_axes_(options.Ints("shared_axes")), regularizer_(options.Raw("alpha_regularizer")) {
    options.Only("alpha_constraint", nullptr);
    options.Skip({"alpha_initializer"});
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    Shape shape(inputs[0].begin() + 1, inputs[0].end());
    for (const int64_t axis : shared_axes_) {
      ASSIGN_OR_RETURN(const int front, FrontAxis(axis, inputs[0].size()));
      if (front > 0) shape[static_cast<size_t>(front) - 1] = 1;
    }
    for (const int64_t extent : shape) {
      if (extent < 1) return absl::InvalidArgumentError("needs to know the shape of its input " + ShapeText(inputs[0]));
    }
    return std::vector<VariableSpec>{{"alpha", shape, regularizer_}};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    return at::relu(inputs[0]) - frame.variable(0) * at::relu(-inputs[0]);
  }

 private:
  const std::vector<int64_t> shared_axes_;
  const Json regularizer_;
};

}  // namespace

void AddActivationLayers(LayerTable& table) {
  table["Activation"] = [](LayerOptions& options) { return std::make_unique<ActivationLayer>(ReadActivation(options, "activation")); };
  for (const char* name : {"ReLU", "LeakyReLU", "ELU", "Softmax"}) {
    table[name] = [name](LayerOptions& options) { return std::make_unique<ActivationLayer>(*ActivationOfLayer(name, options)); };
  }
  table["PReLU"] = [](LayerOptions& options) { return std::make_unique<PRelu>(options); };
}

}  // namespace lockstep
