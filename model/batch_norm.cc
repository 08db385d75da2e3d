#include "model/batch_norm.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>

#include <optional>
#include <vector>

#include "model/normalised_batch.h"
#include "model/owned.h"

namespace lockstep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

int64_t RowsOf(const at::Tensor& x) { return x.size(-1) == 0 ? 0 : x.numel() / x.size(-1); }

// Of what the graph saved for this backward pass, the only one there will be: one handle is the graph's, one is ours.
bool IsSavedForThisAlone(const at::Tensor& saved) {
  return saved.requires_grad() && !saved.is_leaf() && IsOwnedAlone(saved, 2) && !torch::autograd::get_current_graph_task_keep_graph();
}

class BatchNorm final : public torch::autograd::Function<BatchNorm> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const std::optional<at::Tensor>& gamma,
                            const std::optional<at::Tensor>& beta, const at::Tensor& mean, const at::Tensor& variance, bool training,
                            double epsilon, double low, double high) {
    at::Tensor y = at::empty_like(x);
    const NormalisedBatch batch(x, gamma.value_or(at::Tensor()), beta.value_or(at::Tensor()), mean, variance, training,
                                {epsilon, low, high});
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "batch_norm", [&] {
      Normalise(x.data_ptr<scalar_t>(), batch.As<scalar_t>(), RowsOf(x), x.size(-1), y.data_ptr<scalar_t>());
    });
    variable_list saved = batch.Tensors();
    saved.push_back(x);
    context->save_for_backward(std::move(saved));
    batch.SaveData(*context);
    return y;
  }

  // By reference: the engine's own handle is the only one, if nobody else holds the gradient.
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const NormalisedBatch batch = NormalisedBatch::FromSaved(*context, saved, 0);
    const at::Tensor& x = saved[4];
    const bool over_gradient = IsOwnedAlone(gradients[0], 1);
    const at::Tensor dy = gradients[0].contiguous();
    at::Tensor dx = over_gradient ? dy : IsSavedForThisAlone(x) ? x.detach() : at::empty_like(x);
    NormalisedBatch::Terms terms;
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "batch_norm_backward", [&] {
      using T = scalar_t;
      const Normalisation<T> norm = batch.As<T>();
      std::vector<double> sum(static_cast<size_t>(x.size(-1))), product(sum.size());
      SumGradient(x.data_ptr<T>(), dy.data_ptr<T>(), norm, RowsOf(x), x.size(-1), sum.data(), product.data());
      terms = batch.Finish(sum, product, RowsOf(x));
      InputGradient(x.data_ptr<T>(), dy.data_ptr<T>(), norm, terms.a.data_ptr<T>(), terms.b.data_ptr<T>(), RowsOf(x), x.size(-1),
                    dx.data_ptr<T>());
    });
    return {dx, terms.dgamma, terms.dbeta, {}, {}, {}, {}, {}, {}};
  }
};

// Custom functions take no undefined tensors, but empty options.
std::optional<at::Tensor> Optional(const at::Tensor& tensor) { return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt; }

}  // namespace

BatchNormResult BatchNormTraining(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, const BatchNormOptions& options) {
  BatchNormResult result;
  result.mean = at::empty({x.size(-1)}, x.options());
  result.variance = at::empty({x.size(-1)}, x.options());
  result.y = BatchNorm::apply(x.contiguous(), Optional(gamma), Optional(beta), result.mean, result.variance, true, options.epsilon,
                              options.low, options.high);
  return result;
}

at::Tensor BatchNormInference(const at::Tensor& x, const at::Tensor& gamma, const at::Tensor& beta, const at::Tensor& mean,
                              const at::Tensor& variance, const BatchNormOptions& options) {
  return BatchNorm::apply(x.contiguous(), Optional(gamma), Optional(beta), mean, variance, false, options.epsilon, options.low,
                          options.high);
}

}  // namespace lockstep
