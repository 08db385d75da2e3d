#include "memory/cuda_booking.h"

#include <gtest/gtest.h>

namespace lockstep::memory {
namespace {

constexpr int64_t kMiB = 1 << 20;

int64_t Sum(const std::vector<std::pair<Category, int64_t>>& blocks) {
  int64_t sum = 0;
  for (const auto& [category, bytes] : blocks) sum += bytes;
  return sum;
}

TEST(CudaBooking, WorkspacesAreLibtorchsDefaultsByComputeCapability) {
  EXPECT_EQ(CudaConstantsOf(8).cublas_workspace_bytes, 8'519'680);
  EXPECT_EQ(CudaConstantsOf(8).cublaslt_workspace_bytes, 4 * kMiB);
  for (const int major : {9, 10, 12}) {
    EXPECT_EQ(CudaConstantsOf(major).cublas_workspace_bytes, 32 * kMiB) << major;
    EXPECT_EQ(CudaConstantsOf(major).cublaslt_workspace_bytes, 32 * kMiB) << major;
  }
}

TEST(CudaBooking, OfAnUnknownDeviceTheMostOfEachIsBooked) {
  const CudaConstants unknown = CudaConstantsOf(0);
  for (int major = 7; major <= 12; ++major) {
    const CudaConstants known = CudaConstantsOf(major);
    EXPECT_GE(unknown.context_bytes, known.context_bytes);
    EXPECT_GE(unknown.cublas_workspace_bytes, known.cublas_workspace_bytes);
    EXPECT_GE(unknown.cublaslt_workspace_bytes, known.cublaslt_workspace_bytes);
    EXPECT_GE(unknown.cudnn_workspace_bytes, known.cudnn_workspace_bytes);
    EXPECT_GE(unknown.host_bytes, known.host_bytes);
    for (const int ranks : {1, 2, 8}) EXPECT_GE(NcclBytes(unknown, ranks), NcclBytes(known, ranks));
  }
  EXPECT_EQ(Sum(WorkspaceBlocks(CudaConstantsOf(99))), Sum(WorkspaceBlocks(unknown)));
}

TEST(CudaBooking, NcclTakesNothingAloneAndGrowsWithRanksAndChannels) {
  CudaConstants constants = CudaConstantsOf(0);
  EXPECT_EQ(NcclBytes(constants, 0), 0);
  EXPECT_EQ(NcclBytes(constants, 1), 0);
  constants.nccl_channels = 2;
  EXPECT_EQ(NcclBytes(constants, 2), 2 * (4'194'304 + 524'288 + 4'915'200 + 4'194'304));
  EXPECT_EQ(NcclBytes(constants, 3) - NcclBytes(constants, 2), 2 * 4'194'304);
  const int64_t two_channels = NcclBytes(constants, 8);
  constants.nccl_channels = 4;
  EXPECT_EQ(NcclBytes(constants, 8), 2 * two_channels);
}

TEST(CudaBooking, EachHasItsCategory) {
  const CudaConstants constants = CudaConstantsOf(9);
  const Bytes beside = BookedBesidePool(constants, 4);
  EXPECT_EQ(beside[Category::kRuntime], constants.context_bytes);
  EXPECT_EQ(beside[Category::kCommunication], NcclBytes(constants, 4));
  EXPECT_EQ(beside.Total(), constants.context_bytes + NcclBytes(constants, 4));
  for (const auto& [category, bytes] : WorkspaceBlocks(constants)) EXPECT_EQ(category, Category::kWorkspace);
  EXPECT_EQ(Sum(WorkspaceBlocks(constants)), (32 + 32 + 256) * kMiB);
}

TEST(CudaBooking, PinnedBuffersArePowersOfTwo) {
  EXPECT_EQ(PinnedBytes(0), 0);
  EXPECT_EQ(PinnedBytes(1), 1);
  EXPECT_EQ(PinnedBytes(4096), 4096);
  EXPECT_EQ(PinnedBytes(4097), 8192);
  EXPECT_EQ(PinnedBytes((int64_t{1} << 32) + 1), int64_t{1} << 33);
}

}  // namespace
}  // namespace lockstep::memory
