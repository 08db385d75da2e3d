#include "memory/cuda_booking.h"

#include <bit>

namespace lockstep::memory {
namespace {

constexpr int64_t kKiB = 1 << 10;
constexpr int64_t kMiB = 1 << 20;

// cuBLAS, by libtorch's defaults for CUBLAS_WORKSPACE_CONFIG (aten/src/ATen/cuda/CublasHandlePool.cpp, parseChosenWorkspaceSize):
// ":4096:2:16:8", and 32 MiB from compute capability 9 on, which is also what the cuBLAS documentation recommends ("cublasSetWorkspace").
constexpr int64_t kCublasBytes = 2 * 4096 * kKiB + 8 * 16 * kKiB;
constexpr int64_t kCublasBytesFrom9 = 32 * kMiB;
// cuBLASLt, by libtorch's defaults for CUBLASLT_WORKSPACE_SIZE (aten/src/ATen/cuda/CUDABlas.cpp): 1 MiB, on large devices of capability 8
// 4 MiB, from 9 on 32 MiB. Builds that let it use cuBLAS's (TORCH_CUBLASLT_UNIFIED_WORKSPACE) take less.
constexpr int64_t kCublasLtBytes = 4 * kMiB;
constexpr int64_t kCublasLtBytesFrom9 = 32 * kMiB;
// cuDNN, by what is set: CUDNN_CONV_WSCAP_DBG, in MiB (PyTorch documentation, "CUDA Environment Variables").
constexpr int64_t kCudnnCapBytes = 256 * kMiB;
// NCCL 2.28: 4 MiB of the protocol Simple (its documentation, NCCL_BUFFSIZE); of LL 8 lines of 16 bytes for each of 512 threads, of LL128
// 120 words of 8 bytes for each of 640, in 8 steps (src/init.cc, computeBuffSizes; src/include/device.h).
constexpr int64_t kNcclSimpleBytes = 4 * kMiB;
constexpr int64_t kNcclLlBytes = int64_t{8} * 512 * 8 * 16;
constexpr int64_t kNcclLl128Bytes = int64_t{120} * 640 * 8 * 8;
// By what is set: NCCL_MAX_NCHANNELS.
constexpr int kNcclChannels = 8;
// Guesses on the safe side.
constexpr int64_t kContextBytes = 1024 * kMiB;
constexpr int64_t kHostBytes = 2048 * kMiB;

constexpr int kFirstOfLargeWorkspaces = 9;

}  // namespace

CudaConstants CudaConstantsOf(int compute_capability_major) {
  const bool small = compute_capability_major > 0 && compute_capability_major < kFirstOfLargeWorkspaces;
  CudaConstants constants;
  constants.context_bytes = kContextBytes;
  constants.cublas_workspace_bytes = small ? kCublasBytes : kCublasBytesFrom9;
  constants.cublaslt_workspace_bytes = small ? kCublasLtBytes : kCublasLtBytesFrom9;
  constants.cudnn_workspace_bytes = kCudnnCapBytes;
  constants.nccl_channels = kNcclChannels;
  constants.nccl_simple_bytes = kNcclSimpleBytes;
  constants.nccl_ll_bytes = kNcclLlBytes;
  constants.nccl_ll128_bytes = kNcclLl128Bytes;
  constants.host_bytes = kHostBytes;
  return constants;
}

int64_t NcclBytes(const CudaConstants& constants, int ranks) {
  if (ranks < 2) return 0;
  // In a ring a rank hears of one other in every protocol; where each sends to each, of all others in the protocol for much.
  const int64_t ring = constants.nccl_simple_bytes + constants.nccl_ll_bytes + constants.nccl_ll128_bytes;
  return constants.nccl_channels * (ring + (ranks - 1) * constants.nccl_simple_bytes);
}

Bytes BookedBesidePool(const CudaConstants& constants, int ranks) {
  Bytes bytes;
  bytes[Category::kRuntime] = constants.context_bytes;
  bytes[Category::kCommunication] = NcclBytes(constants, ranks);
  return bytes;
}

std::vector<std::pair<Category, int64_t>> WorkspaceBlocks(const CudaConstants& constants) {
  return {{Category::kWorkspace, constants.cublas_workspace_bytes},
          {Category::kWorkspace, constants.cublaslt_workspace_bytes},
          {Category::kWorkspace, constants.cudnn_workspace_bytes}};
}

int64_t PinnedBytes(int64_t bytes) { return bytes <= 0 ? 0 : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(bytes))); }

}  // namespace lockstep::memory
