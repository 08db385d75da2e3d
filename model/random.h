#pragma once
// Counter-based random numbers: Philox 4×32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).
//
// A number is a function of (seed, step, virtual replica, call site in the graph, element): nothing is drawn from a state, so that
// a step that is computed again, elsewhere or later, draws the same.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "model/layer.h"

namespace lockstep {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Uniform in [0, 1) (24 bits), of the given shape. Axis 0 is the batch: element j of sample i is that of (first_sample + i, j).
at::Tensor RandomUniform(at::IntArrayRef shape, const at::TensorOptions& options, const Frame& frame);
// Normal with mean 0 and deviation 1 (Box-Muller).
at::Tensor RandomNormal(at::IntArrayRef shape, const at::TensorOptions& options, const Frame& frame);

}  // namespace lockstep
