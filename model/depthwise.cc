#include "model/depthwise.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "model/depthwise_kernels.h"
#include "model/normalised_batch.h"

namespace lockstep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Geometry {
  int64_t images, height, width, channels, kernel_height, kernel_width;
  DepthwisePlan plan;

  Geometry(const at::Tensor& x, const at::Tensor& kernel, const DepthwisePlan& p)
      : images(x.size(0)),
        height(x.size(1)),
        width(x.size(2)),
        channels(x.size(3)),
        kernel_height(kernel.size(1)),
        kernel_width(kernel.size(2)),
        plan(p) {}
  int64_t row() const { return width * channels; }
  int64_t image() const { return height * row(); }
  int64_t output_row() const { return plan.output.second * channels; }
  int64_t output_image() const { return plan.output.first * output_row(); }
  int64_t kernel_places() const { return kernel_height * kernel_width; }
};

// (C, h, w, 1) as (h, w, C).
at::Tensor ByPlace(const at::Tensor& kernel) { return kernel.detach().squeeze(3).permute({1, 2, 0}).contiguous(); }

// Rows of images, as they are or normalised. Holds the last few that were normalised, so that each is made once an image.
template <typename T>
class ImageRows {
 public:
  ImageRows(const T* images, const Geometry& shape, const NormalisedBatch* batch) : images_(images), shape_(shape) {
    if (batch == nullptr) return;
    norm_ = batch->As<T>();
    held_.assign(static_cast<size_t>((shape.kernel_height - 1) * shape.plan.dilation.first + 1), -1);
    rows_ = at::empty({static_cast<int64_t>(held_.size()) * shape.row()}, at::TensorOptions().dtype(c10::CppTypeToScalarType<T>::value));
  }
  const T* operator()(int64_t image, int64_t row) {
    const int64_t place = image * shape_.height + row;
    const T* const raw = images_ + place * shape_.row();
    if (!norm_) return raw;
    const size_t slot = static_cast<size_t>(row) % held_.size();
    T* const normalised = rows_.data_ptr<T>() + static_cast<int64_t>(slot) * shape_.row();
    if (held_[slot] != place) Normalise(raw, *norm_, shape_.width, shape_.channels, normalised);
    held_[slot] = place;
    return normalised;
  }

 private:
  const T* const images_;
  const Geometry& shape_;
  std::optional<Normalisation<T>> norm_;
  std::vector<int64_t> held_;
  at::Tensor rows_;
};

template <typename T>
void Convolve(const T* x, const NormalisedBatch* batch, const at::Tensor& kernel, const Geometry& s, T* y) {
  const at::Tensor weights = ByPlace(kernel);
  const auto [height, width] = s.plan.output;
  const Taps rows = Taps::Forward(height, s.height, s.kernel_height, s.plan.strides.first, s.plan.dilation.first, s.plan.before.first);
  const Taps columns = Taps::Forward(width, s.width, s.kernel_width, s.plan.strides.second, s.plan.dilation.second, s.plan.before.second);
  std::vector<TapAddress<T>> scratch(static_cast<size_t>(s.kernel_places()));
  std::vector<SourceRow<T>> sources;
  ImageRows<T> image_rows(x, s, batch);
  for (int64_t n = 0; n < s.images; ++n) {
    for (int64_t o = 0; o < height; ++o) {
      sources.clear();
      for (const Tap& row : rows[o]) sources.push_back({image_rows(n, row.source), row.kernel});
      GatherRow(sources, weights.data_ptr<T>(), s.kernel_width, columns, s.channels, scratch.data(),
                y + n * s.output_image() + o * s.output_row());
    }
  }
}

// The gradients of x (normalised, if `batch`), and of the kernel where it is defined; the sums of the former that batch
// normalisation asks for. Row by row, while both are in the cache.
template <typename T>
class Gradients {
 public:
  Gradients(const at::Tensor& x, const NormalisedBatch* batch, const at::Tensor& kernel, const Geometry& shape)
      : x_(x.data_ptr<T>()),
        batch_(batch),
        weights_(ByPlace(kernel)),
        s_(shape),
        rows_(Taps::Backward(s_.plan.output.first, s_.height, s_.kernel_height, s_.plan.strides.first, s_.plan.dilation.first,
                             s_.plan.before.first)),
        columns_(Taps::Backward(s_.plan.output.second, s_.width, s_.kernel_width, s_.plan.strides.second, s_.plan.dilation.second,
                                s_.plan.before.second)),
        correlation_(s_.plan.output.second, s_.width, s_.kernel_width, s_.plan.strides.second, s_.plan.dilation.second,
                     s_.plan.before.second, s_.channels),
        scratch_(static_cast<size_t>(s_.kernel_places())),
        sum(static_cast<size_t>(s_.channels)),
        product(sum.size()) {}

  void Run(const T* dy, T* dx, T* dkernel) {
    const size_t elements = static_cast<size_t>(s_.kernel_places() * s_.channels);
    std::vector<T> image_sums(elements);
    std::vector<double> sums(elements);
    ImageRows<T> image_rows(x_, s_, batch_);
    for (int64_t n = 0; n < s_.images; ++n) {
      std::fill(image_sums.begin(), image_sums.end(), T(0));
      for (int64_t i = 0; i < s_.height; ++i) {
        if (dkernel != nullptr) AddToKernel(image_rows(n, i), dy + n * s_.output_image(), i, image_sums.data());
        if (dx != nullptr) Row(dy + n * s_.output_image(), n, i, dx + n * s_.image() + i * s_.row());
      }
      for (size_t e = 0; e < elements; ++e) sums[e] += image_sums[e];
    }
    if (dkernel == nullptr) return;
    for (int64_t c = 0; c < s_.channels; ++c) {
      for (int64_t k = 0; k < s_.kernel_places(); ++k)
        dkernel[c * s_.kernel_places() + k] = static_cast<T>(sums[static_cast<size_t>(k * s_.channels + c)]);
    }
  }

 private:
  void AddToKernel(const T* image_row, const T* dy, int64_t i, T* sums) const {
    for (const Tap& row : rows_[i])
      CorrelateRow(image_row, dy + row.source * s_.output_row(), correlation_, sums + row.kernel * s_.kernel_width * s_.channels);
  }
  void Row(const T* dy, int64_t n, int64_t i, T* dx) {
    sources_.clear();
    for (const Tap& row : rows_[i]) sources_.push_back({dy + row.source * s_.output_row(), row.kernel});
    GatherRow(sources_, weights_.data_ptr<T>(), s_.kernel_width, columns_, s_.channels, scratch_.data(), dx);
    if (batch_ == nullptr) return;
    TakeGradient(x_ + n * s_.image() + i * s_.row(), dx, batch_->As<T>(), s_.width, s_.channels, sum.data(), product.data());
  }

  const T* const x_;
  const NormalisedBatch* const batch_;
  const at::Tensor weights_;
  const Geometry& s_;
  const Taps rows_, columns_;
  const Correlation correlation_;
  std::vector<TapAddress<T>> scratch_;
  std::vector<SourceRow<T>> sources_;

 public:
  std::vector<double> sum, product;
};

void SavePlan(const DepthwisePlan& p, AutogradContext& context) {
  context.saved_data["plan"] = std::vector<int64_t>{p.strides.first, p.strides.second, p.dilation.first, p.dilation.second,
                                                    p.before.first,  p.before.second,  p.output.first,   p.output.second};
}
DepthwisePlan SavedPlan(AutogradContext& context) {
  const std::vector<int64_t> p = context.saved_data["plan"].toIntVector();
  return {{p[0], p[1]}, {p[2], p[3]}, {p[4], p[5]}, {p[6], p[7]}};
}

class Depthwise final : public torch::autograd::Function<Depthwise> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& kernel, const DepthwisePlan& plan) {
    const Geometry shape(x, kernel, plan);
    at::Tensor y = at::empty({shape.images, plan.output.first, plan.output.second, shape.channels}, x.options());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "depthwise",
                               [&] { Convolve<scalar_t>(x.data_ptr<scalar_t>(), nullptr, kernel, shape, y.data_ptr<scalar_t>()); });
    context->save_for_backward({x, kernel});
    SavePlan(plan, *context);
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const Geometry shape(saved[0], saved[1], SavedPlan(*context));
    const at::Tensor dy = gradients[0].contiguous();
    at::Tensor dx = context->needs_input_grad(0) ? at::empty_like(saved[0]) : at::Tensor();
    at::Tensor dkernel = context->needs_input_grad(1) ? at::empty_like(saved[1]) : at::Tensor();
    AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "depthwise_backward", [&] {
      Gradients<scalar_t>(saved[0], nullptr, saved[1], shape)
          .Run(dy.data_ptr<scalar_t>(), dx.defined() ? dx.data_ptr<scalar_t>() : nullptr,
               dkernel.defined() ? dkernel.data_ptr<scalar_t>() : nullptr);
    });
    return {dx, dkernel, {}};
  }
};

class NormalisedDepthwise final : public torch::autograd::Function<NormalisedDepthwise> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& gamma,
                            const std::optional<at::Tensor>& beta, const at::Tensor& kernel, const at::Tensor& mean,
                            const at::Tensor& variance, bool training, const BatchNormOptions& options, const DepthwisePlan& plan) {
    const Geometry shape(x, kernel, plan);
    const NormalisedBatch batch(x, gamma.value_or(at::Tensor()), beta.value_or(at::Tensor()), mean, variance, training, options);
    at::Tensor y = at::empty({shape.images, plan.output.first, plan.output.second, shape.channels}, x.options());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "depthwise",
                               [&] { Convolve<scalar_t>(x.data_ptr<scalar_t>(), &batch, kernel, shape, y.data_ptr<scalar_t>()); });
    variable_list saved = batch.Tensors();
    saved.push_back(x);
    saved.push_back(kernel);
    context->save_for_backward(std::move(saved));
    batch.SaveData(*context);
    SavePlan(plan, *context);
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const NormalisedBatch batch = NormalisedBatch::FromSaved(*context, saved, 0);
    const at::Tensor &x = saved[4], &kernel = saved[5];
    const Geometry shape(x, kernel, SavedPlan(*context));
    const at::Tensor dy = gradients[0].contiguous();
    at::Tensor dx = at::empty_like(x);
    at::Tensor dkernel = context->needs_input_grad(3) ? at::empty_like(kernel) : at::Tensor();
    NormalisedBatch::Terms terms;
    AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "depthwise_backward", [&] {
      using T = scalar_t;
      Gradients<T> pass(x, &batch, kernel, shape);
      pass.Run(dy.data_ptr<T>(), dx.data_ptr<T>(), dkernel.defined() ? dkernel.data_ptr<T>() : nullptr);
      const int64_t rows = shape.images * shape.height * shape.width;
      terms = batch.Finish(pass.sum, pass.product, rows);
      // dx holds the gradient before the clamp already.
      Normalisation<T> norm = batch.As<T>();
      norm.low = -std::numeric_limits<T>::infinity();
      norm.high = std::numeric_limits<T>::infinity();
      InputGradient(x.data_ptr<T>(), dx.data_ptr<T>(), norm, terms.a.data_ptr<T>(), terms.b.data_ptr<T>(), rows, shape.channels,
                    dx.data_ptr<T>());
    });
    return {dx, terms.dgamma, terms.dbeta, dkernel, {}, {}, {}, {}, {}};
  }
};

std::optional<at::Tensor> Optional(const at::Tensor& tensor) { return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt; }

}  // namespace

at::Tensor DepthwiseConvolution(const at::Tensor& x, const at::Tensor& kernel, const DepthwisePlan& plan) {
  return Depthwise::apply(x, kernel, plan);
}

BatchNormResult NormalisedDepthwiseConvolution(const at::Tensor& x, const NormalisationBefore& norm, const at::Tensor& kernel,
                                               const DepthwisePlan& plan) {
  BatchNormResult result;
  if (norm.training) {
    result.mean = at::empty({x.size(3)}, x.options());
    result.variance = at::empty({x.size(3)}, x.options());
  }
  result.y = NormalisedDepthwise::apply(x.contiguous(), Optional(norm.gamma), Optional(norm.beta), kernel,
                                        norm.training ? result.mean : norm.moving_mean,
                                        norm.training ? result.variance : norm.moving_variance, norm.training, norm.options, plan);
  return result;
}

}  // namespace lockstep
