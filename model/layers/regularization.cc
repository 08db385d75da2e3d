// Layers that are random in training and pass their input on otherwise.

#include <ATen/ATen.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/layers/registry.h"
#include "model/random.h"

namespace lockstep {
namespace {

double Rate(LayerOptions& options, const char* key) {
  const double rate = options.Number(key);
  options.Skip({"seed"});
  if (rate < 0 || rate > 1) options.Problem(absl::StrCat("option ", key, " must lie between 0 and 1"));
  return rate;
}

// Multiplies by a mask of zeros and 1 / (1 − rate), drawn in `noise_shape` (1 where an axis shares its draw).
at::Tensor Drop(const at::Tensor& x, double rate, at::IntArrayRef noise_shape, const Frame& frame) {
  if (rate >= 1) return at::zeros_like(x);
  const at::Tensor keep = RandomUniform(noise_shape, x.options(), frame) >= rate;
  return x * (keep.to(x.scalar_type()) * (1.0 / (1.0 - rate)));
}

class Dropout final : public Layer {
 public:
  explicit Dropout(LayerOptions& options) : rate_(Rate(options, "rate")) {
    const Json shape = options.Raw("noise_shape");
    if (!shape.is_array()) return;
    for (const Json& extent : shape) noise_.push_back(extent.is_number_integer() ? extent.get<int64_t>() : -1);
    if (!noise_.empty() && noise_[0] > 1) options.Problem("option noise_shape: a batch size other than 1 is not supported");
  }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
    if (!noise_.empty() && noise_.size() != inputs[0].size())
      return absl::InvalidArgumentError("its noise_shape has another rank than its input");
    return inputs[0];
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    if (!frame.context.training || rate_ == 0) return x;
    std::vector<int64_t> shape = x.sizes().vec();
    for (size_t i = 0; i < noise_.size(); ++i) {
      if (noise_[i] > 0) shape[i] = noise_[i];
    }
    return Drop(x, rate_, shape, frame);
  }

 private:
  const double rate_;
  std::vector<int64_t> noise_;
};

// Drops whole feature maps.
class SpatialDropout2D final : public Layer {
 public:
  explicit SpatialDropout2D(LayerOptions& options) : rate_(Rate(options, "rate")) { options.Only("data_format", "channels_last"); }
  absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const override {
    RETURN_IF_ERROR(ExpectInputs(inputs, 1, 4));
    return inputs[0];
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    if (!frame.context.training || rate_ == 0) return x;
    return Drop(x, rate_, {x.size(0), 1, 1, x.size(3)}, frame);
  }

 private:
  const double rate_;
};

class GaussianNoise final : public Layer {
 public:
  explicit GaussianNoise(LayerOptions& options) : deviation_(options.Number("stddev")) {
    options.Skip({"seed"});
    if (deviation_ < 0) options.Problem("option stddev must not be negative");
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    if (!frame.context.training || deviation_ == 0) return x;
    return x + RandomNormal(x.sizes(), x.options(), frame) * deviation_;
  }

 private:
  const double deviation_;
};

class GaussianDropout final : public Layer {
 public:
  explicit GaussianDropout(LayerOptions& options) : rate_(Rate(options, "rate")) {
    if (rate_ == 1) options.Problem("option rate must be less than 1");
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    if (!frame.context.training || rate_ == 0) return x;
    return x * (RandomNormal(x.sizes(), x.options(), frame) * std::sqrt(rate_ / (1 - rate_)) + 1.0);
  }

 private:
  const double rate_;
};

// Dropout that keeps mean and deviation of what selu makes. Source: keras.layers.AlphaDropout.
class AlphaDropout final : public Layer {
 public:
  explicit AlphaDropout(LayerOptions& options) : rate_(Rate(options, "rate")) {
    options.Only("noise_shape", nullptr);
    if (rate_ == 1) options.Problem("option rate must be less than 1");
  }
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    if (!frame.context.training || rate_ == 0) return x;
    constexpr double kDropped = -1.6732632423543772848170429916717 * 1.0507009873554804934193349852946;
    const double scale = 1 / std::sqrt((1 - rate_) * (1 + rate_ * kDropped * kDropped));
    const at::Tensor keep = (RandomUniform(x.sizes(), x.options(), frame) >= rate_).to(x.scalar_type());
    return (x * keep + (1 - keep) * kDropped) * scale - scale * kDropped * rate_;
  }

 private:
  const double rate_;
};

// ConvNeXt's: drops whole samples of a residual branch.
class StochasticDepth final : public Layer {
 public:
  explicit StochasticDepth(LayerOptions& options) : rate_(Rate(options, "drop_path_rate")) {}
  at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const override {
    const at::Tensor& x = inputs[0];
    if (!frame.context.training) return x;
    std::vector<int64_t> shape(static_cast<size_t>(x.dim()), 1);
    shape[0] = x.size(0);
    return Drop(x, rate_, shape, frame);
  }

 private:
  const double rate_;
};

}  // namespace

void AddRegularizationLayers(LayerTable& table) {
  table["Dropout"] = [](LayerOptions& options) { return std::make_unique<Dropout>(options); };
  table["SpatialDropout2D"] = [](LayerOptions& options) { return std::make_unique<SpatialDropout2D>(options); };
  table["GaussianNoise"] = [](LayerOptions& options) { return std::make_unique<GaussianNoise>(options); };
  table["GaussianDropout"] = [](LayerOptions& options) { return std::make_unique<GaussianDropout>(options); };
  table["AlphaDropout"] = [](LayerOptions& options) { return std::make_unique<AlphaDropout>(options); };
  table["StochasticDepth"] = [](LayerOptions& options) { return std::make_unique<StochasticDepth>(options); };
}

}  // namespace lockstep
