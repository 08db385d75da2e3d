#pragma once
// ReLU and its bounded kin of a value that is nobody else's, where it lies; in backward of its gradient, too, where that is nobody else's.

#include <ATen/core/Tensor.h>

#include "model/activation.h"

namespace lockstep {

// REQUIRES: clamp.IsClamp(); nothing keeps `x` for backward. Bits as at::relu_ and at::hardtanh_.
at::Tensor ClampInPlace(at::Tensor x, const Activation& clamp);

}  // namespace lockstep
