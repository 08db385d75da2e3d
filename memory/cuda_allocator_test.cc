#include "memory/cuda_allocator.h"

#include <gtest/gtest.h>

namespace lockstep::memory {
namespace {

constexpr int64_t kMiB = 1 << 20;

TEST(CudaAllocator, SmallRequestsShareASegmentOfTwoMebibytes) {
  CudaAllocator allocator;
  ASSERT_TRUE(allocator.Allocate(1).has_value());
  ASSERT_TRUE(allocator.Allocate(513).has_value());
  EXPECT_EQ(allocator.usage().allocated, 512 + 1024);
  EXPECT_EQ(allocator.usage().reserved, 2 * kMiB);
}

}  // namespace
}  // namespace lockstep::memory
