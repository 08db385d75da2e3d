// Normalisation: BatchNormalization, LayerNormalization, GroupNormalization, UnitNormalization, and ConvNeXt's LayerScale.

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/activation.h"
#include "model/batch_norm.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

// gamma and beta as most of these layers have them.
class Affine {
 public:
  explicit Affine(LayerOptions& options)
      : scale_(options.Flag("scale", true)),
        center_(options.Flag("center", true)),
        gamma_regularizer_(options.Raw("gamma_regularizer")),
        beta_regularizer_(options.Raw("beta_regularizer")) {
    options.Only("gamma_constraint", nullptr);
    options.Only("beta_constraint", nullptr);
    options.Skip({"gamma_initializer", "beta_initializer"});
  }

  std::vector<VariableSpec> Variables(const Shape& shape) const {
    std::vector<VariableSpec> variables;
    if (scale_) variables.push_back({"gamma", shape, gamma_regularizer_});
    if (center_) variables.push_back({"beta", shape, beta_regularizer_});
    return variables;
  }
  int count() const { return (scale_ ? 1 : 0) + (center_ ? 1 : 0); }
  at::Tensor gamma(const Frame& frame) const { return scale_ ? frame.variable(0) : at::Tensor(); }
  at::Tensor beta(const Frame& frame) const { return center_ ? frame.variable(scale_ ? 1 : 0) : at::Tensor(); }

 private:
  const bool scale_, center_;
  const Json gamma_regularizer_, beta_regularizer_;
};

absl::StatusOr<int64_t> KnownAxis(const Shape& shape, int64_t axis) {
  ASSIGN_OR_RETURN(const int front, FrontAxis(axis, shape.size()));
  const int64_t extent = shape[static_cast<size_t>(front)];
  if (extent < 1) return absl::InvalidArgumentError(absl::StrCat("needs to know axis ", front, " of its input ", ShapeText(shape)));
  return extent;
}

class BatchNormalization final : public Layer {
 public:
  explicit BatchNormalization(LayerOptions& options)
      : axis_(options.Int("axis", -1)), momentum_(options.Number("momentum", 0.99)), affine_(options) {
    norm_.epsilon = options.Number("epsilon", 1e-3);
    norm_.low = -std::numeric_limits<double>::infinity();
    norm_.high = std::numeric_limits<double>::infinity();
    options.Only("synchronized", false);
    options.Only("renorm", false);
    options.Skip({"moving_mean_initializer", "moving_variance_initializer", "renorm_clipping", "renorm_momentum"});
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    ASSIGN_OR_RETURN(const int64_t channels, KnownAxis(inputs[0], axis_));
    std::vector<VariableSpec> variables = affine_.Variables({channels});
    for (const char* name : {"moving_mean", "moving_variance"}) {
      VariableSpec& statistic = variables.emplace_back(VariableSpec{name, {channels}});
      statistic.trainable = false;
      statistic.statistic = true;
    }
    return variables;
  }
  std::vector<std::pair<int, double>> StatisticUpdates(bool trainable) const override {
    if (!trainable) return {};
    return {{affine_.count(), momentum_}, {affine_.count() + 1, momentum_}};
  }
  bool Fuse(const Activation& next) override {
    if (!next.IsClamp() || norm_.low == 0) return false;
    norm_.low = 0;
    norm_.high = next.max_value;
    return true;
  }
  bool FuseFollower(const Layer& next) const override { return (axis_ == -1 || axis_ == 3) && next.takes_normalised(); }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const bool training = frame.context.training && frame.trainable;
    if (frame.follower != nullptr) {
      const NormalisationBefore norm{
          affine_.gamma(frame), affine_.beta(frame), frame.variable(affine_.count()), frame.variable(affine_.count() + 1), training, norm_};
      BatchNormResult result = frame.follower->layer.ForwardNormalised(inputs[0], norm, frame.follower->frame);
      if (training) LeaveStatistics(result, frame);
      return std::move(result.y);
    }
    const bool last = axis_ == -1 || axis_ == inputs[0].dim() - 1;
    const at::Tensor x = last ? inputs[0] : inputs[0].movedim(axis_, -1);
    at::Tensor y;
    if (training) {
      BatchNormResult result = BatchNormTraining(x, affine_.gamma(frame), affine_.beta(frame), norm_);
      LeaveStatistics(result, frame);
      y = std::move(result.y);
    } else {
      y = BatchNormInference(x, affine_.gamma(frame), affine_.beta(frame), frame.variable(affine_.count()),
                             frame.variable(affine_.count() + 1), norm_);
    }
    return last ? y : y.movedim(-1, axis_).contiguous();
  }

 private:
  void LeaveStatistics(const BatchNormResult& result, const Frame& frame) const {
    const int first = frame.first_variable + affine_.count();
    frame.context.statistics.push_back({first, result.mean, momentum_});
    frame.context.statistics.push_back({first + 1, result.variance, momentum_});
  }

  const int64_t axis_;
  const double momentum_;
  const Affine affine_;
  BatchNormOptions norm_;
};

// Over the given axes of each sample; gamma and beta have those axes' shape.
class LayerNormalization final : public Layer {
 public:
  explicit LayerNormalization(LayerOptions& options)
      : axes_(options.Ints("axis", {-1})), epsilon_(options.Number("epsilon", 1e-3)), affine_(options) {
    options.Only("rms_scaling", false);
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    Shape shape;
    std::vector<int> fronts;
    for (const int64_t axis : axes_) {
      ASSIGN_OR_RETURN(const int front, FrontAxis(axis, inputs[0].size()));
      fronts.push_back(front);
    }
    std::sort(fronts.begin(), fronts.end());
    broadcast_.assign(inputs[0].size(), 1);
    for (const int front : fronts) {
      ASSIGN_OR_RETURN(const int64_t extent, KnownAxis(inputs[0], front));
      shape.push_back(extent);
      broadcast_[static_cast<size_t>(front)] = extent;
      reduced_.push_back(front);
    }
    trailing_ = reduced_.front() + static_cast<int64_t>(reduced_.size()) == static_cast<int64_t>(inputs[0].size());
    return affine_.Variables(shape);
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    const at::Tensor gamma = affine_.gamma(frame), beta = affine_.beta(frame);
    if (trailing_) {
      return at::layer_norm(x, x.sizes().slice(static_cast<size_t>(reduced_.front())),
                            gamma.defined() ? std::optional<at::Tensor>(gamma) : std::nullopt,
                            beta.defined() ? std::optional<at::Tensor>(beta) : std::nullopt, epsilon_);
    }
    const at::Tensor mean = x.mean(reduced_, true);
    const at::Tensor deviation = x - mean;
    at::Tensor y = deviation * at::rsqrt(at::square(deviation).mean(reduced_, true) + epsilon_);
    if (gamma.defined()) y = y * gamma.view(broadcast_);
    return beta.defined() ? y + beta.view(broadcast_) : y;
  }

 private:
  const std::vector<int64_t> axes_;
  const double epsilon_;
  const Affine affine_;
  std::vector<int64_t> broadcast_, reduced_;
  bool trailing_ = false;
};

class GroupNormalization final : public Layer {
 public:
  explicit GroupNormalization(LayerOptions& options)
      : groups_(options.Int("groups", 32)), epsilon_(options.Number("epsilon", 1e-3)), affine_(options) {
    const int64_t axis = options.Int("axis", -1);
    if (axis != -1 && axis != 3) options.Problem(absl::StrCat("option axis is ", axis, ", which is not supported; the last axis is"));
  }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    ASSIGN_OR_RETURN(const int64_t channels, KnownAxis(inputs[0], -1));
    if (groups_ == -1) groups_ = channels;  // Keras: instance normalisation
    if (groups_ < 1 || channels % groups_ != 0) {
      return absl::InvalidArgumentError(absl::StrCat("its ", channels, " channels are not a multiple of its ", groups_, " groups"));
    }
    return affine_.Variables({channels});
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    const at::Tensor grouped = x.reshape({x.size(0), -1, groups_, x.size(-1) / groups_});
    const at::Tensor deviation = grouped - grouped.mean({1, 3}, true);
    const at::Tensor unit = deviation * at::rsqrt(at::square(deviation).mean({1, 3}, true) + epsilon_);
    at::Tensor y = unit.reshape(x.sizes());
    if (affine_.gamma(frame).defined()) y = y * affine_.gamma(frame);
    return affine_.beta(frame).defined() ? y + affine_.beta(frame) : y;
  }

 private:
  int64_t groups_;
  const double epsilon_;
  const Affine affine_;
};

class UnitNormalization final : public Layer {
 public:
  explicit UnitNormalization(LayerOptions& options) : axes_(options.Ints("axis", {-1})) {}
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame&) const override {
    return inputs[0] * at::rsqrt(at::clamp_min(at::square(inputs[0]).sum(axes_, true), 1e-12));
  }

 private:
  const std::vector<int64_t> axes_;
};

// x / sqrt(mean(x²) + epsilon) · scale over the given axes. Source: keras.layers.RMSNormalization.
class RmsNormalization final : public Layer {
 public:
  explicit RmsNormalization(LayerOptions& options) : axes_(options.Ints("axis", {-1})), epsilon_(options.Number("epsilon", 1e-6)) {}
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs) override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    Shape shape;
    broadcast_.assign(inputs[0].size(), 1);
    for (const int64_t axis : axes_) {
      ASSIGN_OR_RETURN(const int front, FrontAxis(axis, inputs[0].size()));
      ASSIGN_OR_RETURN(const int64_t extent, KnownAxis(inputs[0], axis));
      shape.push_back(extent);
      broadcast_[static_cast<size_t>(front)] = extent;
    }
    return std::vector<VariableSpec>{{"scale", shape}};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    return x * at::rsqrt(at::square(x).mean(axes_, true) + epsilon_) * frame.variable(0).view(broadcast_);
  }

 private:
  const std::vector<int64_t> axes_;
  const double epsilon_;
  std::vector<int64_t> broadcast_;
};

class LayerScale final : public Layer {
 public:
  explicit LayerScale(LayerOptions& options) : channels_(options.Int("projection_dim")) { options.Skip({"init_values"}); }
  absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape>) override {
    return std::vector<VariableSpec>{{"gamma", {channels_}}};
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override { return inputs[0] * frame.variable(0); }

 private:
  const int64_t channels_;
};

}  // namespace

void AddNormalizationLayers(LayerTable& table) {
  table["BatchNormalization"] = [](LayerOptions& options) { return std::make_unique<BatchNormalization>(options); };
  table["LayerNormalization"] = [](LayerOptions& options) { return std::make_unique<LayerNormalization>(options); };
  table["GroupNormalization"] = [](LayerOptions& options) { return std::make_unique<GroupNormalization>(options); };
  table["UnitNormalization"] = [](LayerOptions& options) { return std::make_unique<UnitNormalization>(options); };
  table["RMSNormalization"] = [](LayerOptions& options) { return std::make_unique<RmsNormalization>(options); };
  table["LayerScale"] = [](LayerOptions& options) { return std::make_unique<LayerScale>(options); };
}

}  // namespace lockstep
