#include "model/layers/convolution_made.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <memory>
#include <tuple>
#include <utility>

namespace lockstep {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

class Made final : public torch::autograd::Node {
 public:
  Made(torch::autograd::edge_list next, const at::Tensor& input, const at::Tensor& kernel, const at::Tensor& bias, ConvolutionShape shape)
      : Node(std::move(next)), input_(input, false), kernel_(kernel, false), has_bias_(bias.defined()), shape_(std::move(shape)) {}

  variable_list apply(variable_list&& gradients) override {
    variable_list result(3);
    const at::Tensor& gradient = gradients[0];
    if (!gradient.defined()) return result;
    const at::Tensor kernel = kernel_.unpack();
    const std::vector<int64_t> of_bias = {kernel.size(0)};
    at::OptionalIntArrayRef bias_sizes;
    if (has_bias_) bias_sizes = of_bias;
    std::tie(result[0], result[1], result[2]) = at::convolution_backward(
        ChannelsFirst(gradient), input_.unpack(), kernel, bias_sizes, shape_.strides, shape_.padding, shape_.dilation, /*transposed=*/false,
        {0, 0}, shape_.groups, {task_should_compute_output(0), task_should_compute_output(1), has_bias_ && task_should_compute_output(2)});
    return result;
  }

  void release_variables() override {
    input_.reset_data();
    kernel_.reset_data();
  }

 private:
  SavedVariable input_, kernel_;
  const bool has_bias_;
  const ConvolutionShape shape_;
};

}  // namespace

at::Tensor ChannelsFirst(const at::Tensor& x) {
  return x.size(3) == 1 ? x.reshape({x.size(0), 1, x.size(1), x.size(2)}) : x.permute({0, 3, 1, 2});
}

at::Tensor ConvolutionMade(const at::Tensor& input, const at::Tensor& kernel, const at::Tensor& bias, const ConvolutionShape& shape,
                           const at::Tensor& output) {
  at::Tensor result = output.detach();
  if (!torch::autograd::compute_requires_grad(input, kernel, bias)) return result;
  const auto made = std::make_shared<Made>(torch::autograd::collect_next_edges(input, kernel, bias), input, kernel, bias, shape);
  torch::autograd::set_history(result, made);
  return result;
}

}  // namespace lockstep
