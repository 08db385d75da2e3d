#pragma once
// Lets a few samples be computed with the kernels of many. Used by trials, which record a few samples for micro-batches of any size; no
// result that anybody keeps is computed so. Includes no libtorch.

#include <cstdint>

namespace lockstep {

// From this many samples on ATen takes another kernel for 1×1 convolutions on one thread, and from fewer on several threads
// (aten/src/ATen/native/Convolution.cpp, use_mkldnn), so that the sequence of allocations changes.
inline constexpr int64_t kManySamples = 16;

// While it lives, convolutions that this thread runs, forward and backward, take the kernels that they take of kManySamples or more.
// REQUIRES: this thread computes on one thread (at::set_num_threads(1)); there is one such object a thread at a time.
class ScopedKernelsOfMany {
 public:
  ScopedKernelsOfMany();
  ~ScopedKernelsOfMany();
  ScopedKernelsOfMany(const ScopedKernelsOfMany&) = delete;
  ScopedKernelsOfMany& operator=(const ScopedKernelsOfMany&) = delete;

  // Not where there was a convolution that cannot be told which kernel to take: a 1×1 convolution whose input needs no gradient.
  bool all_taken() const { return all_taken_; }

 private:
  friend class ConvolutionObserver;
  bool all_taken_ = true;
  const uint64_t callback_;
};

}  // namespace lockstep
