// Operations of keras.ops that became nodes of a graph: arithmetic of tensors with tensors or numbers, functions of each element,
// reductions, and activations.

#include <ATen/ATen.h>

#include <cctype>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/activation.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

using Binary = at::Tensor (*)(const at::Tensor&, const at::Tensor&);
using Unary = at::Tensor (*)(const at::Tensor&);
using Reduction = at::Tensor (*)(const at::Tensor&, at::IntArrayRef axes, bool keep);

const std::map<std::string, Binary>& Binaries() {
  static const auto& table = *new std::map<std::string, Binary>{
      {"Add", [](const at::Tensor& a, const at::Tensor& b) { return a + b; }},
      {"Subtract", [](const at::Tensor& a, const at::Tensor& b) { return a - b; }},
      {"Multiply", [](const at::Tensor& a, const at::Tensor& b) { return a * b; }},
      {"Divide", [](const at::Tensor& a, const at::Tensor& b) { return a / b; }},
      {"TrueDivide", [](const at::Tensor& a, const at::Tensor& b) { return a / b; }},
      {"Power", [](const at::Tensor& a, const at::Tensor& b) { return at::pow(a, b); }},
      {"Maximum", [](const at::Tensor& a, const at::Tensor& b) { return at::maximum(a, b); }},
      {"Minimum", [](const at::Tensor& a, const at::Tensor& b) { return at::minimum(a, b); }},
  };
  return table;
}

const std::map<std::string, Unary>& Unaries() {
  static const auto& table = *new std::map<std::string, Unary>{
      {"Absolute", [](const at::Tensor& x) { return at::abs(x); }}, {"Abs", [](const at::Tensor& x) { return at::abs(x); }},
      {"Exp", [](const at::Tensor& x) { return at::exp(x); }},      {"Log", [](const at::Tensor& x) { return at::log(x); }},
      {"Negative", [](const at::Tensor& x) { return at::neg(x); }}, {"Rsqrt", [](const at::Tensor& x) { return at::rsqrt(x); }},
      {"Sqrt", [](const at::Tensor& x) { return at::sqrt(x); }},    {"Square", [](const at::Tensor& x) { return at::square(x); }},
  };
  return table;
}

const std::map<std::string, Reduction>& Reductions() {
  static const auto& table = *new std::map<std::string, Reduction>{
      {"Mean", [](const at::Tensor& x, at::IntArrayRef axes, bool keep) { return at::mean(x, axes, keep); }},
      {"Sum", [](const at::Tensor& x, at::IntArrayRef axes, bool keep) { return at::sum(x, axes, keep); }},
      {"Max", [](const at::Tensor& x, at::IntArrayRef axes, bool keep) { return at::amax(x, axes, keep); }},
      {"Min", [](const at::Tensor& x, at::IntArrayRef axes, bool keep) { return at::amin(x, axes, keep); }},
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
    return inputs.size() == 1 ? inputs[0] : BroadcastShapes(inputs[0], inputs[1]);
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    const auto value = [&](const Operand& operand) {
      return operand.input >= 0 ? inputs[static_cast<size_t>(operand.input)] : at::full({}, operand.number, inputs[0].options());
    };
    return operation_(value(left_), value(right_));
  }

 private:
  const Binary operation_;
  const Operand left_, right_;
};

class UnaryOperation final : public Layer {
 public:
  explicit UnaryOperation(Unary operation) : operation_(operation) {}
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override { return operation_(inputs[0]); }

 private:
  const Unary operation_;
};

class ActivationOperation final : public Layer {
 public:
  explicit ActivationOperation(Activation activation) : activation_(std::move(activation)) {}
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override { return Activate(activation_, inputs[0], frame); }
  const Activation* activation() const override { return &activation_; }

 private:
  const Activation activation_;
};

class ReductionOperation final : public Layer {
 public:
  ReductionOperation(Reduction operation, LayerOptions& options)
      : operation_(operation), axes_(options.Ints("axis")), keep_(options.Flag("keepdims", false)) {
    options.Only("initial", nullptr);
    // All axes would include the batch's, which stays.
    if (axes_.empty()) options.Problem("option axis must name the axes; a reduction over the batch is not supported");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    std::vector<bool> gone(inputs[0].size(), false);
    for (const int64_t axis : axes_) {
      ASSIGN_OR_RETURN(const int front, FrontAxis(axis, inputs[0].size()));
      if (front == 0) return absl::InvalidArgumentError("reduces over the batch, which is not supported");
      gone[static_cast<size_t>(front)] = true;
    }
    Shape shape;
    for (size_t i = 0; i < gone.size(); ++i) {
      if (!gone[i]) shape.push_back(inputs[0][i]);
      if (gone[i] && keep_) shape.push_back(1);
    }
    return shape;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override { return operation_(inputs[0], axes_, keep_); }

 private:
  const Reduction operation_;
  const std::vector<int64_t> axes_;
  const bool keep_;
};

std::optional<Operand> ReadOperand(const Json& argument) {
  if (argument.is_number()) return Operand{-1, argument.get<double>()};
  if (argument.is_object() && argument.contains("tensor")) return Operand{argument["tensor"].get<int>(), 0};
  return std::nullopt;
}

// keras.ops.LeakyRelu → leaky_relu, with the options that the operation's configuration holds.
std::optional<Activation> ActivationOfOperation(const std::string& class_name, LayerOptions& options) {
  std::string name;
  for (const char c : class_name) {
    if (c >= 'A' && c <= 'Z' && !name.empty()) name += '_';
    name += static_cast<char>(std::tolower(c));
  }
  std::optional<Activation> activation = ActivationByName(name);
  if (!activation) return std::nullopt;
  using Kind = Activation::Kind;
  if (activation->kind == Kind::kLeakyRelu) activation->slope = options.Number("negative_slope", activation->slope);
  if (activation->kind == Kind::kElu || activation->kind == Kind::kCelu) activation->slope = options.Number("alpha", activation->slope);
  if (activation->kind == Kind::kGelu) activation->approximate = options.Flag("approximate", true);  // keras.ops.gelu's default
  if (activation->kind == Kind::kSoftmax || activation->kind == Kind::kLogSoftmax) activation->axes = options.Ints("axis", {-1});
  if (activation->kind == Kind::kLogSoftmax && activation->axes.size() != 1) options.Problem("option axis must be one axis");
  if (activation->kind == Kind::kSoftShrink || activation->kind == Kind::kHardShrink) options.Only("threshold", 0.5);
  if (activation->kind == Kind::kSquareplus) options.Only("b", 4);
  return activation;
}

}  // namespace

std::unique_ptr<Layer> MakeOperation(const std::string& class_name, const OperationCall& call, LayerOptions& options) {
  const auto binary = Binaries().find(class_name);
  if (binary != Binaries().end() && call.arguments.size() == 2 && call.keywords.empty()) {
    const std::optional<Operand> left = ReadOperand(call.arguments[0]), right = ReadOperand(call.arguments[1]);
    if (left && right) return std::make_unique<BinaryOperation>(binary->second, *left, *right);
  }
  if (call.arguments.size() == 1 && call.keywords.empty()) {
    const auto unary = Unaries().find(class_name);
    if (unary != Unaries().end()) return std::make_unique<UnaryOperation>(unary->second);
    const auto reduction = Reductions().find(class_name);
    if (reduction != Reductions().end()) return std::make_unique<ReductionOperation>(reduction->second, options);
    if (std::optional<Activation> activation = ActivationOfOperation(class_name, options)) {
      return std::make_unique<ActivationOperation>(std::move(*activation));
    }
  }
  options.Problem("this operation, with these arguments, is not known");
  return nullptr;
}

std::vector<std::string> KnownOperationNames() {
  std::vector<std::string> known = ActivationNames();
  for (const auto& [name, operation] : Binaries()) known.push_back(name);
  for (const auto& [name, operation] : Unaries()) known.push_back(name);
  for (const auto& [name, operation] : Reductions()) known.push_back(name);
  return known;
}

}  // namespace lockstep
