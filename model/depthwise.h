#pragma once
// Depthwise convolution on one thread: every channel with a kernel of its own, any size, stride and dilation, and padding that may
// differ from side to side, so that `same` padding copies no image. With a batch normalisation before it, which then never
// stands in memory: each row of the image is normalised on its way to the convolution, and again on the way back.
//
// Sums run in the order of the taps; those of the kernel's gradient in T over one image and in float64 over the images. The order
// depends on the shape alone.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "model/batch_norm.h"

namespace lockstep {

struct DepthwisePlan {
  std::pair<int64_t, int64_t> strides{1, 1}, dilation{1, 1};
  std::pair<int64_t, int64_t> before{0, 0};  // rows and columns of zeros above and left of the image
  std::pair<int64_t, int64_t> output{0, 0};  // height and width; what they reach beyond the image is zeros too
};

// `x`: (N, H, W, C), contiguous, float or double; `kernel`: (C, h, w, 1), contiguous. The result: (N, output, C), contiguous. Gradients
// flow to both.
at::Tensor DepthwiseConvolution(const at::Tensor& x, const at::Tensor& kernel, const DepthwisePlan& plan);
// The same of the normalised x; y of the result is that of the convolution. Gradients flow to gamma and beta too.
BatchNormResult NormalisedDepthwiseConvolution(const at::Tensor& x, const NormalisationBefore& norm, const at::Tensor& kernel,
                                               const DepthwisePlan& plan);

}  // namespace lockstep
