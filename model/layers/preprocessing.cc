// Layers at the head of a graph: Rescaling and Normalization.

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

// A number, or nested lists of numbers, flat. A problem if it is neither.
std::vector<double> Numbers(LayerOptions& options, const char* key) {
  const Json value = options.Raw(key);
  std::vector<double> numbers;
  const std::function<bool(const Json&)> gather = [&](const Json& node) {
    if (node.is_number()) return numbers.push_back(node.get<double>()), true;
    return node.is_array() && std::all_of(node.begin(), node.end(), gather);
  };
  if (!value.is_null() && !gather(value)) options.Problem(absl::StrCat("option ", key, " must be a number or a list of numbers"));
  return numbers;
}

at::Tensor Constant(const std::vector<double>& values, const at::Tensor& like) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).to(like.options());
}

class Rescaling final : public Layer {
 public:
  explicit Rescaling(LayerOptions& options) : scale_(Numbers(options, "scale")), offset_(Numbers(options, "offset")) {
    if (scale_.empty()) scale_ = {1};
    if (offset_.empty()) offset_ = {0};
  }
  bool rescales() const override { return true; }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    if (scale_.size() == 1 && offset_.size() == 1) return inputs[0] * scale_[0] + offset_[0];
    return inputs[0] * Constant(scale_, inputs[0]) + Constant(offset_, inputs[0]);
  }

 private:
  std::vector<double> scale_, offset_;
};

// (x − mean) / max(sqrt(variance), 1e-7), with the statistics in the configuration or among the variables.
class Normalization final : public Layer {
 public:
  explicit Normalization(LayerOptions& options)
      : axes_(options.Ints("axis")),
        invert_(options.Flag("invert", false)),
        mean_(Numbers(options, "mean")),
        variance_(Numbers(options, "variance")) {
    if (mean_.empty() != variance_.empty()) options.Problem("options mean and variance must be given together");
  }
  bool rescales() const override { return true; }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    Shape kept;
    broadcast_.assign(inputs[0].size(), 1);
    std::vector<int> fronts;
    for (const int64_t axis : axes_) {
      ASSIGN_OR_RETURN(const int front, FrontAxis(axis, inputs[0].size()));
      fronts.push_back(front);
    }
    std::sort(fronts.begin(), fronts.end());
    for (const int front : fronts) {
      const int64_t extent = inputs[0][static_cast<size_t>(front)];
      if (extent < 1) return absl::InvalidArgumentError(absl::StrCat("needs to know axis ", front, " of its input"));
      kept.push_back(extent);
      broadcast_[static_cast<size_t>(front)] = extent;
    }
    if (!mean_.empty()) return std::vector<VariableSpec>();
    std::vector<VariableSpec> variables = {{"mean", kept}, {"variance", kept}, {"count", {}}};
    for (VariableSpec& variable : variables) variable.trainable = false;
    return variables;
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    const auto shaped = [&](const std::vector<double>& values, int variable) {
      if (values.empty()) return frame.variable(variable).view(broadcast_);
      const at::Tensor constant = Constant(values, x);
      return values.size() == 1 || axes_.size() != 1 ? constant : constant.view(broadcast_);
    };
    const at::Tensor mean = shaped(mean_, 0);
    const at::Tensor deviation = at::clamp_min(at::sqrt(shaped(variance_, 1)), 1e-7);
    return invert_ ? x * deviation + mean : (x - mean) / deviation;
  }

 private:
  const std::vector<int64_t> axes_;
  const bool invert_;
  const std::vector<double> mean_, variance_;
  std::vector<int64_t> broadcast_;
};

}  // namespace

void AddPreprocessingLayers(LayerTable& table) {
  table["Rescaling"] = [](LayerOptions& options) { return std::make_unique<Rescaling>(options); };
  table["Normalization"] = [](LayerOptions& options) { return std::make_unique<Normalization>(options); };
}

}  // namespace lockstep
