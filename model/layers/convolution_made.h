#pragma once
// A convolution whose result is known: its place in the autograd graph without its forward pass. For a second computation that only makes
// ready what backward needs (model/recompute). Backward calls what that of at::convolution calls, with the same arguments, so that the
// gradients have the same bits.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lockstep {

// A view in (N, C, H, W) order of a tensor in (N, H, W, C) order. A single channel is the same bytes either way, and must say so by its
// strides: those of a permutation mislead libtorch 2.11, whose float32 convolutions with strides (1, n) then read beyond the rows.
at::Tensor ChannelsFirst(const at::Tensor& x);

// Rows, columns.
struct ConvolutionShape {
  std::vector<int64_t> strides, padding, dilation;
  int64_t groups = 1;
};

// `input`, `kernel`: (N, C, H, W), (O, C / groups, h, w); `bias`: (O), or undefined; `output`: (N, H, W, O), what the convolution made of
// them, without history, or anything of that shape.
at::Tensor ConvolutionMade(const at::Tensor& input, const at::Tensor& kernel, const at::Tensor& bias, const ConvolutionShape& shape,
                           const at::Tensor& output);

}  // namespace lockstep
