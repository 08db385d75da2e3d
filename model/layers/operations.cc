// Operations of keras.ops that became nodes of a graph: arithmetic of tensors with tensors or numbers, and activations.

#include <ATen/ATen.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "model/activation.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

using Binary = at::Tensor (*)(const at::Tensor&, const at::Tensor&);

const std::map<std::string, Binary>& Binaries() {
  static const auto& table = *new std::map<std::string, Binary>{
      {"Add", [](const at::Tensor& a, const at::Tensor& b) { return a + b; }},
      {"Subtract", [](const at::Tensor& a, const at::Tensor& b) { return a - b; }},
      {"Multiply", [](const at::Tensor& a, const at::Tensor& b) { return a * b; }},
      {"Divide", [](const at::Tensor& a, const at::Tensor& b) { return a / b; }},
      {"TrueDivide", [](const at::Tensor& a, const at::Tensor& b) { return a / b; }},
      {"Maximum", [](const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }},
      {"Minimum", [](const at::Tensor& a, const at::Tensor& b) { return at::minimum(a, b); }},
  };
  return table;
}

// One operand: an input tensor, or a number.
struct Operand {
  int input = -1;
  double number = 0;
};

class BinaryOperation final : public Layer {
 public:
  BinaryOperation(Binary operation, Operand left, Operand right) : operation_(operation), left_(left), right_(right) {}
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    if (inputs.empty() || inputs.size() > 2) return absl::InvalidArgumentError("takes one or two tensors");
    if (inputs.size() == 1) return inputs[0];
    if (inputs[0].size() != inputs[1].size()) return inputs[0].size() > inputs[1].size() ? inputs[0] : inputs[1];
    Shape shape = inputs[0];
    for (size_t i = 0; i < shape.size(); ++i) {
      const int64_t a = inputs[0][i], b = inputs[1][i];
      if (a != b && a > 1 && b > 1) return absl::InvalidArgumentError(absl::StrCat("cannot join ", ShapeText(inputs[0]), " and ", ShapeText(inputs[1])));
      shape[i] = a == 1 ? b : a;
    }
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    const auto value = [&](const Operand& operand) {
      return operand.input >= 0 ? inputs[static_cast<size_t>(operand.input)]
                                : at::full({}, operand.number, inputs[0].options());
    };
    return operation_(value(left_), value(right_));
  }

 private:
  const Binary operation_;
  const Operand left_, right_;
};

class UnaryOperation final : public Layer {
 public:
  explicit UnaryOperation(Activation activation) : activation_(activation) {}
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    return Activate(activation_, inputs[0], frame);
  }
  const Activation* activation() const override { return &activation_; }

 private:
  const Activation activation_;
};

std::optional<Operand> ReadOperand(const Json& argument) {
  if (argument.is_number()) return Operand{-1, argument.get<double>()};
  if (argument.is_object() && argument.contains("tensor")) return Operand{argument["tensor"].get<int>(), 0};
  return std::nullopt;
}

}  // namespace

std::unique_ptr<Layer> MakeOperation(const std::string& class_name, const OperationCall& call, LayerOptions& options) {
  const auto binary = Binaries().find(class_name);
  if (binary != Binaries().end() && call.arguments.size() == 2 && call.keywords.empty()) {
    const std::optional<Operand> left = ReadOperand(call.arguments[0]), right = ReadOperand(call.arguments[1]);
    if (left && right) return std::make_unique<BinaryOperation>(binary->second, *left, *right);
  }
  if (call.arguments.size() == 1 && call.keywords.empty()) {
    std::string name;
    for (const char c : class_name) {
      if (c >= 'A' && c <= 'Z' && !name.empty()) name += '_';
      name += static_cast<char>(std::tolower(c));
    }
    if (const std::optional<Activation> activation = ActivationByName(name)) return std::make_unique<UnaryOperation>(*activation);
  }
  options.Problem(absl::StrCat("operation ", class_name, " with these arguments is not supported"));
  return nullptr;
}

}  // namespace lockstep
