#pragma once
// What a trainer's process takes of a CUDA device beside its tensors, and how that is booked. Between the model of the device's allocator,
// which knows of tensors only, and planning. Constants of a kind of device, each a bound in round numbers, by its source: none of them was
// measured on a device yet (docs/memory.md, "Planning for a GPU"). Plain data, pure functions. No libtorch, no CUDA.

#include <cstdint>
#include <utility>
#include <vector>

#include "memory/category.h"

namespace lockstep::memory {

struct CudaConstants {
  // The driver's context, and the code of the kernels of libtorch, cuBLAS and cuDNN that a step loads. No document states it.
  int64_t context_bytes = 0;
  // What libtorch asks of its own allocator for each handle and stream of cuBLAS, and of cuBLASLt, and keeps.
  int64_t cublas_workspace_bytes = 0;
  int64_t cublaslt_workspace_bytes = 0;
  // What a convolution may ask of the same allocator while it runs: cuDNN's cap, to which a trainer sets it.
  int64_t cudnn_workspace_bytes = 0;
  // Channels of NCCL, to which a trainer limits it, and what each has for one peer in each of its protocols.
  int nccl_channels = 0;
  int64_t nccl_simple_bytes = 0, nccl_ll_bytes = 0, nccl_ll128_bytes = 0;
  // Of the host's memory: CUDA's libraries as far as they are touched, and what the driver keeps for the context.
  int64_t host_bytes = 0;
};

// By the major number of the compute capability. One that is not known, and 0: the most of each.
CudaConstants CudaConstantsOf(int compute_capability_major);

// What NCCL keeps on the device of one of so many ranks.
int64_t NcclBytes(const CudaConstants& constants, int ranks);

// Beside the allocator: the context as runtime, NCCL as communication.
Bytes BookedBesidePool(const CudaConstants& constants, int ranks);

// Of the allocator, for as long as the process lives. That of a convolution is there only while one runs: held all the time it is a bound.
std::vector<std::pair<Category, int64_t>> WorkspaceBlocks(const CudaConstants& constants);

// Pinned memory of the host for a buffer: libtorch rounds it up to a power of two (ATen/core/CachingHostAllocator.h).
int64_t PinnedBytes(int64_t bytes);

}  // namespace lockstep::memory
