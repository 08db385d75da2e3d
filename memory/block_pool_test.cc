#include "memory/block_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace lockstep::memory {
namespace {

constexpr int64_t kMiB = 1 << 20;

TEST(BlockPool, BooksUnderTheThreadsCategory) {
  BlockPool pool({});
  void* parameters = nullptr;
  {
    ScopedCategory category(Category::kParameters);
    parameters = pool.Allocate(100'000);
  }
  ScopedCategory category(Category::kActivations);
  void* activations = pool.Allocate(kMiB);
  EXPECT_EQ(pool.GetUsage().live[Category::kParameters], 102'400);  // whole pages
  EXPECT_EQ(pool.GetUsage().live[Category::kActivations], kMiB);
  pool.Free(parameters);
  EXPECT_EQ(pool.GetUsage().live[Category::kParameters], 0) << "freed under the category it was allocated for";
  EXPECT_EQ(pool.GetUsage().live[Category::kAllocatorSlack], 102'400);
  EXPECT_EQ(pool.GetUsage().peak_bytes, kMiB + 102'400);
  pool.Free(activations);
}

TEST(BlockPool, RefusesWhatWouldPassTheLimitAndRemembersIt) {
  BlockPool pool({.limit_bytes = 4 * kMiB});
  void* three = pool.Allocate(3 * kMiB);
  ASSERT_NE(three, nullptr);
  EXPECT_EQ(pool.Allocate(2 * kMiB), nullptr);
  EXPECT_EQ(pool.GetUsage().refused, 1);
  pool.Free(three);
  void* four = pool.Allocate(4 * kMiB);
  EXPECT_NE(four, nullptr) << "a kept block must not stand in the way";
  EXPECT_EQ(pool.GetUsage().live[Category::kAllocatorSlack], 0);
  pool.Free(four);
}

TEST(BlockPool, AFreedBlockServesTheSameSizeAgain) {
  BlockPool pool({});
  void* first = pool.Allocate(kMiB);
  pool.Free(first);
  void* second = pool.Allocate(kMiB - kMiB / 16);
  EXPECT_EQ(second, first);
  EXPECT_EQ(pool.GetUsage().live.Total(), kMiB) << "the whole block is booked";
  void* small = pool.Allocate(kMiB / 2);
  pool.Free(second);
  EXPECT_NE(pool.Allocate(kMiB / 2), second) << "half a block is too much waste";
  pool.Free(small);
}

TEST(BlockPool, KeptBlocksStayWithinTheSlack) {
  BlockPool pool({.slack_bytes = kMiB});
  for (int i = 1; i <= 40; ++i) pool.Free(pool.Allocate(static_cast<size_t>(i) * 200'000));
  const BlockPool::Usage usage = pool.GetUsage();
  EXPECT_LE(usage.live.Total(), 40 * 200'000 + kMiB + 4096);
}

TEST(BlockPool, ManyThreadsLeaveNothingBehind) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  BlockPool pool({});
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&pool, seed, t] {
      std::mt19937 random(seed + t);
      std::vector<std::pair<unsigned char*, size_t>> held;
      for (int i = 0; i < 3000; ++i) {
        const size_t bytes = 1 + random() % 200'000;
        auto* block = static_cast<unsigned char*>(pool.Allocate(bytes));
        std::memset(block, static_cast<int>(t), bytes);
        held.emplace_back(block, bytes);
        if (held.size() > 8) {
          const size_t which = random() % held.size();
          for (size_t at = 0; at < held[which].second; at += 997) ASSERT_EQ(held[which].first[at], t);
          pool.Free(held[which].first);
          held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
        }
      }
      for (const auto& [block, bytes] : held) pool.Free(block);
    });
  }
  for (auto& thread : threads) thread.join();
  BlockPool::Usage usage = pool.GetUsage();
  EXPECT_EQ(usage.live.Total(), usage.live[Category::kAllocatorSlack]);
  pool.Trim();
  EXPECT_EQ(pool.GetUsage().live.Total(), 0);
}

}  // namespace
}  // namespace lockstep::memory
