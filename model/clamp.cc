#include "model/clamp.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>

#include <cmath>

#include "model/owned.h"

namespace lockstep {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void Clamp(at::Tensor& x, double high) { std::isinf(high) ? at::relu_(x) : at::hardtanh_(x, 0.0, high); }

class ClampOver final : public torch::autograd::Function<ClampOver> {
 public:
  static at::Tensor forward(AutogradContext* context, at::Tensor x, double high) {
    Clamp(x, high);
    context->mark_dirty({x});
    context->save_for_backward({x});
    context->saved_data["high"] = high;
    return x;
  }

  // By reference: the engine's own handle is the only one, if nobody else holds the gradient.
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &y = saved[0], &dy = gradients[0];
    const double high = context->saved_data["high"].toDouble();
    // What is saved has another handle of its memory in the graph, which lets go of it after this.
    const bool over_saved = !torch::autograd::get_current_graph_task_keep_graph() && IsOwnedAlone(y, 1, 1);
    at::Tensor dx = IsOwnedAlone(dy, 1) ? dy : over_saved ? y.detach() : at::empty_like(y);
    if (std::isinf(high)) {
      at::threshold_backward_out(dx, dy, y, 0);
    } else {
      at::hardtanh_backward_out(dx, dy, y, 0.0, high);
    }
    return {dx, {}};
  }
};

}  // namespace

at::Tensor ClampInPlace(at::Tensor x, const Activation& clamp) {
  if (x.requires_grad() && at::GradMode::is_enabled()) return ClampOver::apply(x, clamp.max_value);
  Clamp(x, clamp.max_value);
  return x;
}

}  // namespace lockstep
