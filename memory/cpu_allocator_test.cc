#include "memory/cpu_allocator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace lockstep::memory {
namespace {

TEST(CpuTensorPool, CountsTensorsAndThrowsOutOfMemoryAtTheLimit) {
  BlockPool& pool = CpuTensorPool();
  const int64_t before = pool.GetUsage().live.Total();
  ScopedCategory category(Category::kActivations);
  at::Tensor tensor = at::empty({1024, 1024});
  EXPECT_EQ(pool.GetUsage().live[Category::kActivations], 4 << 20);
  pool.SetLimit(before + (6 << 20));
  EXPECT_THROW(at::empty({1024, 1024}), c10::OutOfMemoryError);
  EXPECT_EQ(pool.GetUsage().refused, 1);
  pool.SetLimit(0);
  tensor.reset();
  EXPECT_EQ(pool.GetUsage().live[Category::kActivations], 0);
}

}  // namespace
}  // namespace lockstep::memory
