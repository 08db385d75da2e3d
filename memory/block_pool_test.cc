#include "memory/block_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>
#include <utility>
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

TEST(BlockPool, KeepsTheHighestOfEachPhaseAndWhatRanThen) {
  BlockPool pool({});
  const auto high = [&pool](Phase phase) {
    const BlockPool::HighWater mark = pool.GetUsage().high_water[static_cast<size_t>(phase)];
    return std::pair(mark.bytes / kMiB, mark.layer);
  };
  void* parameters = pool.Allocate(kMiB);
  const ScopedPhase forward(Phase::kForward);
  SetLayer("conv1");
  void* one = pool.Allocate(kMiB);
  SetLayer("conv2");
  void* two = pool.Allocate(3 * kMiB);
  pool.Free(two);
  SetLayer("dense");
  pool.Free(pool.Allocate(kMiB));
  EXPECT_EQ(high(Phase::kForward), std::pair(int64_t{5}, std::string("conv2")));
  {
    const ScopedPhase backward(Phase::kBackward);
    pool.Free(pool.Allocate(kMiB));
    pool.EndOf("dense");
    two = pool.Allocate(4 * kMiB);
    std::thread([&pool] { pool.EndOf("another thread's"); }).join();
    EXPECT_EQ(high(Phase::kBackward), std::pair(int64_t{6}, std::string())) << "not known yet";
    pool.EndOf("conv2");
    pool.Free(two);
    pool.Free(one);
    pool.Free(pool.Allocate(kMiB));
    pool.EndOf("conv1");
    EXPECT_EQ(high(Phase::kBackward), std::pair(int64_t{6}, std::string("conv2")));
  }
  {
    const ScopedPhase update(Phase::kUpdate);
    pool.Mark();
  }
  EXPECT_EQ(high(Phase::kUpdate), std::pair(int64_t{1}, std::string())) << "it allocates nothing";
  EXPECT_EQ(high(Phase::kLoad), std::pair(int64_t{1}, std::string()));
  EXPECT_EQ(high(Phase::kValidate), std::pair(int64_t{0}, std::string()));
  EXPECT_EQ(CurrentPlace().phase, Phase::kForward) << "a scope ends where it began";
  pool.Free(parameters);
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

TEST(BlockPool, LiveBytesOfARequestAreAFunctionOfItsSize) {
  BlockPool pool({});
  for (const auto& [bytes, booked] :
       {std::pair<size_t, int64_t>{0, 64}, {1, 64}, {65, 128}, {1025, 1280}, {4096, 4096}, {4097, 8192}, {kMiB + 1, kMiB + 4096}}) {
    void* kept = pool.Allocate(bytes + 100'000);  // larger, and free when the request comes
    pool.Free(kept);
    void* block = pool.Allocate(bytes);
    const BlockPool::Usage usage = pool.GetUsage();
    EXPECT_EQ(usage.live.Total() - usage.live[Category::kAllocatorSlack], booked) << bytes;
    EXPECT_EQ(BlockPool::BlockSize(bytes), booked);
    pool.Free(block);
  }
}

TEST(BlockPool, FreedNeighboursServeALargerRequest) {
  BlockPool pool({.slack_bytes = 0});
  std::vector<void*> blocks;
  for (int i = 0; i < 8; ++i) blocks.push_back(pool.Allocate(kMiB));
  for (const int i : {0, 2, 1, 7, 5, 6, 3, 4}) pool.Free(blocks[static_cast<size_t>(i)]);
  void* whole = pool.Allocate(8 * kMiB);
  EXPECT_EQ(whole, blocks[0]);
  EXPECT_EQ(pool.GetUsage().live[Category::kAllocatorSlack], 0);
  pool.Free(whole);
}

// What a training step is to the pool: the same requests in the same order, freed in another.
std::vector<void*> OneStep(BlockPool& pool, std::mt19937 random) {
  std::vector<void*> live;
  for (int i = 0; i < 400; ++i) {
    const size_t bytes = random() % 4 == 0 ? 1 + random() % 10'000 : 1 + random() % (3 * kMiB);
    auto* block = static_cast<char*>(pool.Allocate(bytes));
    for (size_t at = 0; at < bytes; at += 4096) block[at] = 1;
    live.push_back(block);
    if (live.size() <= 40) continue;
    const size_t which = random() % live.size();
    pool.Free(live[which]);
    live.erase(live.begin() + static_cast<std::ptrdiff_t>(which));
  }
  return live;
}

int64_t MinorFaults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

TEST(BlockPool, ARepeatedStepTouchesNoNewPages) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  BlockPool pool({});
  int64_t faults = 0;
  for (int step = 0; step < 6; ++step) {
    const int64_t before = MinorFaults();
    for (void* block : OneStep(pool, std::mt19937(seed))) pool.Free(block);
    faults = MinorFaults() - before;
  }
  const BlockPool::Usage usage = pool.GetUsage();
  EXPECT_LT(faults, 100) << "of " << usage.peak_bytes / 4096 << " pages";
  EXPECT_LE(usage.live.Total(), usage.peak_bytes + (32 << 20) + Slabs::kSlabBytes * 20);
}

TEST(BlockPool, TheKernelHoldsNoMoreThanWhatIsReservedAndTrimGivesItBack) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  BlockPool pool({.slack_bytes = 4 * kMiB});
  const std::vector<void*> live = OneStep(pool, std::mt19937(seed));
  EXPECT_LE(pool.ResidentBytes(), pool.GetUsage().live.Total());
  EXPECT_GT(pool.ResidentBytes(), pool.GetUsage().live.Total() / 2);
  for (void* block : live) pool.Free(block);
  pool.Trim();
  EXPECT_EQ(pool.GetUsage().live.Total(), 0);
  EXPECT_EQ(pool.ResidentBytes(), 0);
}

// Slabs in use keep their free parts whatever the bound; without small blocks it is strict.
class BlockPoolRandom : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(SmallBlocksToo, BlockPoolRandom, testing::Bool());

TEST_P(BlockPoolRandom, RequestsUnderMovingLimits) {
  const bool small = GetParam();
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  BlockPool pool({.slack_bytes = kMiB});
  struct Held {
    unsigned char* block;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Held> held;
  int64_t live = 0, highest = 0, limit = 0, refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    if (random() % 500 == 0) {
      limit = random() % 2 == 0 ? 0 : static_cast<int64_t>(1 + random() % (12 * kMiB));
      pool.SetLimit(limit);
    }
    if (!held.empty() && random() % 2 == 0) {
      const size_t which = random() % held.size();
      const Held& old = held[which];
      for (size_t at = 0; at < old.bytes; at += 509) ASSERT_EQ(old.block[at], old.mark) << "blocks overlap";
      live -= BlockPool::BlockSize(old.bytes);
      pool.Free(old.block);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
    } else {
      const size_t bytes = small && random() % 3 != 0 ? random() % 8'000 : Slabs::kLargestBlock + 1 + random() % kMiB;
      auto* block = static_cast<unsigned char*>(pool.Allocate(bytes));
      const bool fits = limit == 0 || live + BlockPool::BlockSize(bytes) <= limit;
      ASSERT_EQ(block != nullptr, fits) << bytes << " of " << limit << " with " << live;
      if (block == nullptr) {
        ++refused;
        continue;
      }
      const auto mark = static_cast<unsigned char>(random());
      std::memset(block, mark, bytes);
      held.push_back({block, bytes, mark});
      live += BlockPool::BlockSize(bytes);
      highest = std::max(highest, live);
    }
    const BlockPool::Usage usage = pool.GetUsage();
    const int64_t kept = usage.live[Category::kAllocatorSlack];
    ASSERT_EQ(usage.live.Total() - kept, live);
    ASSERT_EQ(usage.refused, refused);
    if (small) continue;
    ASSERT_LE(live + kept, highest + kMiB);
    if (limit > 0) {
      ASSERT_LE(live + kept, std::max(limit, live));
    }
  }
  for (const Held& old : held) pool.Free(old.block);
  pool.Trim();
  EXPECT_EQ(pool.GetUsage().live.Total(), 0);
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
