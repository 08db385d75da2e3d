#pragma once
// Convolution of images as Keras does it, on tensors in (N, H, W, C) order.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "model/layer_options.h"

namespace lockstep {

// Rows or columns of padding before and after.
struct Padding {
  int64_t before = 0, after = 0;
};

// What `same` padding adds along one axis: so much that the output has ceil(size / stride) places, the odd one after (TensorFlow's rule).
// REQUIRES: size > 0.
Padding SamePadding(int64_t size, int64_t kernel, int64_t stride, int64_t dilation);

struct ConvolutionPlan {
  std::pair<int64_t, int64_t> kernel{1, 1}, strides{1, 1}, dilation{1, 1};
  bool same = false;
  int64_t groups = 1;
  Padding rows, columns;  // of zeros, taken over from a ZeroPadding2D

  // −1 stays −1.
  std::pair<int64_t, int64_t> OutputSize(int64_t height, int64_t width) const;
};

// `kernel` in run layout (out, h, w, in / groups); `bias` may be undefined. The result is contiguous. Where `output` is defined it is the
// result, computed before: only what backward needs is made ready. Its shape is enough, if nobody reads the result.
at::Tensor Convolve(const at::Tensor& x, const at::Tensor& kernel, const at::Tensor& bias, const ConvolutionPlan& plan,
                    const at::Tensor& output = {});

}  // namespace lockstep
