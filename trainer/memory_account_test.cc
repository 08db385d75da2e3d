#include "trainer/memory_account.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace lockstep {
namespace {

using memory::Category;

constexpr int64_t kMiB = 1 << 20;

// What a library or a leak leaves in the heap: `total` bytes in blocks of 1 KiB, all of them written.
class HeapBlocks {
 public:
  explicit HeapBlocks(int64_t total) {
    for (int64_t i = 0; i < total / 1024; ++i) {
      blocks_.push_back(std::make_unique<char[]>(1024));
      std::memset(blocks_.back().get(), 1, 1024);
    }
  }
  // Every other one: the heap cannot shrink.
  void FreeHalf() {
    for (size_t i = 0; i < blocks_.size(); i += 2) blocks_[i].reset();
  }

 private:
  std::vector<std::unique_ptr<char[]>> blocks_;
};

// Sanitizers' malloc says nothing of itself.
bool HeapIsUnknown() { return GetHeapBytes().in_use == 0; }

TEST(MemoryAccount, ALeakShowsInUnaccountedAndNowhereElse) {
  if (HeapIsUnknown()) GTEST_SKIP() << "not glibc's malloc";
  const memory::BlockPool pool({});
  MemoryAccount account(pool, 0);
  account.Settle({});
  const MemoryFigures before = account.Take({});
  EXPECT_LT(before.bytes[Category::kUnaccounted], kMiB);
  const HeapBlocks leak(50 * kMiB);
  const MemoryFigures after = account.Take({});
  EXPECT_NEAR(static_cast<double>(after.bytes[Category::kUnaccounted] - before.bytes[Category::kUnaccounted]), 50.0 * kMiB, 2.0 * kMiB);
  EXPECT_NEAR(static_cast<double>(after.bytes.Total() - after.resident_bytes), 0, kMiB);
}

TEST(MemoryAccount, WhatLibrariesHoldWhenItSettlesIsTheRuntimes) {
  if (HeapIsUnknown()) GTEST_SKIP() << "not glibc's malloc";
  const memory::BlockPool pool({});
  MemoryAccount account(pool, 0);
  const MemoryFigures before = account.Take({});
  const HeapBlocks library(20 * kMiB), pipeline(5 * kMiB);
  OwnedBytes owned;
  owned.input_pipeline = owned.in_heap = 5 * kMiB;
  account.Settle(owned);
  const MemoryFigures after = account.Take(owned);
  EXPECT_NEAR(static_cast<double>(after.bytes[Category::kRuntime] - before.bytes[Category::kRuntime]), 20.0 * kMiB, 1.5 * kMiB);
  EXPECT_EQ(after.bytes[Category::kInputPipeline], 5 * kMiB);
  EXPECT_LT(after.bytes[Category::kUnaccounted], kMiB);
}

TEST(MemoryAccount, WhatTheHeapKeepsForLaterIsSlack) {
  if (HeapIsUnknown()) GTEST_SKIP() << "not glibc's malloc";
  const memory::BlockPool pool({});
  MemoryAccount account(pool, 0);
  HeapBlocks blocks(20 * kMiB);
  account.Settle({});
  const MemoryFigures before = account.Take({});
  blocks.FreeHalf();
  account.Settle({});
  const MemoryFigures after = account.Take({});
  EXPECT_NEAR(static_cast<double>(after.bytes[Category::kAllocatorSlack] - before.bytes[Category::kAllocatorSlack]), 10.0 * kMiB, kMiB);
  EXPECT_LT(after.bytes[Category::kUnaccounted], kMiB);
}

TEST(MemoryAccount, WhatTheHeapHasAndTheKernelDoesNotIsNobodys) {
  if (HeapIsUnknown()) GTEST_SKIP() << "not glibc's malloc";
  const memory::BlockPool pool({});
  MemoryAccount account(pool, 0);
  ASSERT_EQ(mallopt(M_MMAP_THRESHOLD, 32 << 20), 1);
  ASSERT_EQ(mallopt(M_TRIM_THRESHOLD, 512 << 20), 1);
  account.Settle({});
  const MemoryFigures before = account.Take({});
  // As the input pipeline's buffers: asked for, hardly touched, given back.
  void* volatile buffer = std::malloc(20 * kMiB);
  const HeapBlocks after_it(kMiB);
  std::free(buffer);
  const MemoryFigures after = account.Take({});
  EXPECT_LT(after.bytes[Category::kAllocatorSlack] - before.bytes[Category::kAllocatorSlack], kMiB);
  EXPECT_NEAR(static_cast<double>(after.bytes.Total() - after.resident_bytes), 0, kMiB);
}

}  // namespace
}  // namespace lockstep
