#include "model/activation.h"

#include <ATen/ATen.h>

#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep {
namespace {

using Kind = Activation::Kind;

const std::map<std::string, Activation>& ByName() {
  static const auto& table = *new std::map<std::string, Activation>{
      {"linear", {}},
      {"relu", Activation::Relu(0, std::nullopt, 0)},
      {"relu6", Activation::Relu(0, 6.0, 0)},
      {"leaky_relu", {Kind::kLeakyRelu, 0.2}},
      {"elu", {Kind::kElu, 1.0}},
      {"selu", {Kind::kSelu}},
      {"celu", {Kind::kCelu, 1.0}},
      {"gelu", {Kind::kGelu}},
      {"silu", {Kind::kSilu}},
      {"swish", {Kind::kSilu}},
      {"hard_silu", {Kind::kHardSilu}},
      {"hard_swish", {Kind::kHardSilu}},
      {"sigmoid", {Kind::kSigmoid}},
      {"hard_sigmoid", {Kind::kHardSigmoid}},
      {"log_sigmoid", {Kind::kLogSigmoid}},
      {"sparse_sigmoid", {Kind::kSparseSigmoid}},
      {"tanh", {Kind::kTanh}},
      {"hard_tanh", {Kind::kHardTanh}},
      {"tanh_shrink", {Kind::kTanhShrink}},
      {"soft_shrink", {Kind::kSoftShrink}},
      {"hard_shrink", {Kind::kHardShrink}},
      {"softplus", {Kind::kSoftplus}},
      {"softsign", {Kind::kSoftsign}},
      {"sparse_plus", {Kind::kSparsePlus}},
      {"squareplus", {Kind::kSquareplus}},
      {"exponential", {Kind::kExponential}},
      {"mish", {Kind::kMish}},
      {"softmax", {Kind::kSoftmax}},
      {"log_softmax", {Kind::kLogSoftmax}},
  };
  return table;
}

// keras.activations.relu: above the threshold x, up to max_value; below it slope · (x − threshold).
at::Tensor Relu(const at::Tensor& x, const Activation& a) {
  const bool bounded = a.max_value < std::numeric_limits<double>::infinity();
  at::Tensor y;
  if (a.threshold != 0) {
    y = at::where(x > a.threshold, x, at::zeros({}, x.options()));
    if (bounded) y = at::clamp(y, 0.0, a.max_value);
  } else {
    y = bounded ? at::hardtanh(x, 0.0, a.max_value) : at::relu(x);
  }
  if (a.slope == 0) return y;
  const at::Tensor below = a.threshold != 0 ? at::relu(a.threshold - x) : at::relu(-x);
  return y - a.slope * below;
}

at::Tensor SparseSigmoid(const at::Tensor& x) { return at::hardtanh(0.5 * (x + 1), 0.0, 1.0); }

}  // namespace

Activation Activation::Relu(double slope, std::optional<double> max_value, double threshold) {
  return {Kind::kRelu, slope, max_value.value_or(std::numeric_limits<double>::infinity()), threshold};
}

at::Tensor Activation::operator()(const at::Tensor& x) const {
  switch (kind) {
    case Kind::kLinear: return x;
    case Kind::kRelu: return lockstep::Relu(x, *this);
    case Kind::kLeakyRelu: return at::leaky_relu(x, slope);
    case Kind::kElu: return at::elu(x, slope);
    case Kind::kSelu: return at::selu(x);
    case Kind::kCelu: return at::celu(x, slope);
    case Kind::kGelu: return at::gelu(x, approximate ? "tanh" : "none");
    case Kind::kSilu: return at::silu(x);
    case Kind::kHardSilu: return at::hardswish(x);
    case Kind::kSigmoid: return at::sigmoid(x);
    case Kind::kHardSigmoid: return at::hardsigmoid(x);
    case Kind::kLogSigmoid: return at::log_sigmoid(x);
    case Kind::kSparseSigmoid: return SparseSigmoid(x);
    case Kind::kTanh: return at::tanh(x);
    case Kind::kHardTanh: return at::hardtanh(x, -1.0, 1.0);
    case Kind::kTanhShrink: return x - at::tanh(x);
    case Kind::kSoftShrink: return at::softshrink(x, 0.5);
    case Kind::kHardShrink: return at::hardshrink(x, 0.5);
    case Kind::kSoftplus: return at::softplus(x);
    case Kind::kSoftsign: return x / (1 + at::abs(x));
    case Kind::kSparsePlus: return at::where(x <= -1, at::zeros_like(x), at::where(x < 1, 0.25 * at::square(x + 1), x));
    case Kind::kSquareplus: return 0.5 * (x + at::sqrt(at::square(x) + 4));
    case Kind::kExponential: return at::exp(x);
    case Kind::kMish: return at::mish(x);
    case Kind::kSoftmax:
      if (axes.size() == 1) return at::softmax(x, axes[0]);
      return at::exp(x - at::logsumexp(x, axes, /*keepdim=*/true));
    case Kind::kLogSoftmax: return at::log_softmax(x, axes[0]);
  }
  return x;
}

at::Tensor Activate(const Activation& activation, const at::Tensor& x, const Frame& frame) {
  if (frame.is_output && (activation.kind == Kind::kSoftmax || activation.kind == Kind::kSigmoid)) frame.context.logits = x;
  return activation(x);
}

std::optional<Activation> ActivationByName(const std::string& name) {
  const auto found = ByName().find(name);
  if (found == ByName().end()) return std::nullopt;
  return found->second;
}

std::vector<std::string> ActivationNames() {
  std::vector<std::string> names;
  for (const auto& [name, activation] : ByName()) names.push_back(name);
  return names;
}

std::optional<Activation> ActivationOfLayer(const std::string& class_name, LayerOptions& options) {
  if (class_name == "ReLU") {
    const double slope = options.Number("negative_slope", 0.0), threshold = options.Number("threshold", 0.0);
    return Activation::Relu(slope, options.NumberOrNull("max_value"), threshold);
  }
  if (class_name == "LeakyReLU") return Activation{Kind::kLeakyRelu, options.Number("negative_slope", 0.3)};
  if (class_name == "ELU") return Activation{Kind::kElu, options.Number("alpha", 1.0)};
  if (class_name == "Softmax") {
    Activation softmax{Kind::kSoftmax};
    softmax.axes = options.Ints("axis", {-1});
    if (softmax.axes.empty()) options.Problem("option axis names no axis");
    return softmax;
  }
  return std::nullopt;
}

Activation ReadActivation(LayerOptions& options, const char* key) {
  const Json value = options.Raw(key);
  if (value.is_null()) return {};
  const Json* name = &value;
  if (value.is_object() && value.contains("class_name") && value.contains("config")) {
    if (value["config"].is_string()) {
      name = &value["config"];
    } else if (value["class_name"].is_string()) {
      LayerOptions inner(value["config"]);
      const std::optional<Activation> layer = ActivationOfLayer(value["class_name"].get<std::string>(), inner);
      for (std::string& problem : inner.Problems()) options.Problem(absl::StrCat("option ", key, ": ", problem));
      if (layer.has_value()) return *layer;
    }
  }
  const std::optional<Activation> found = name->is_string() ? ActivationByName(name->get<std::string>()) : std::nullopt;
  if (!found.has_value())
    options.Problem(absl::StrCat("option ", key, ": activation ", value.dump().substr(0, 120), " is not known; known are ",
                                 absl::StrJoin(ActivationNames(), ", ")));
  return found.value_or(Activation{});
}

}  // namespace lockstep
