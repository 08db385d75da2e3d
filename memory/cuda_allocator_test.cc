#include "memory/cuda_allocator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

namespace lockstep::memory {
namespace {

constexpr int64_t kMiB = 1 << 20;

// Blocks that must be had.
class CudaAllocatorTest : public testing::Test {
 protected:
  static int32_t Take(CudaAllocator& allocator, int64_t bytes) {
    const std::optional<int32_t> block = allocator.Allocate(bytes);
    if (!block.has_value()) ADD_FAILURE() << bytes << " bytes refused";
    return block.value_or(CudaAllocator::kNoBlock);
  }
  static std::pair<int64_t, int64_t> Allocated(const CudaAllocator& allocator) {
    return {allocator.usage().allocated, allocator.usage().reserved};
  }
};

using Figures = std::pair<int64_t, int64_t>;  // allocated, reserved

TEST_F(CudaAllocatorTest, SizesAreThoseOfTheTwoPools) {
  EXPECT_EQ(CudaAllocator::BlockSize(1), 512);
  EXPECT_EQ(CudaAllocator::BlockSize(512), 512);
  EXPECT_EQ(CudaAllocator::BlockSize(513), 1024);
  EXPECT_EQ(CudaAllocator::BlockSize(3 * kMiB + 1), 3 * kMiB + 512);
  EXPECT_EQ(CudaAllocator::SegmentSize(512), 2 * kMiB);
  EXPECT_EQ(CudaAllocator::SegmentSize(kMiB), 2 * kMiB);
  EXPECT_EQ(CudaAllocator::SegmentSize(kMiB + 512), 20 * kMiB);
  EXPECT_EQ(CudaAllocator::SegmentSize(10 * kMiB - 512), 20 * kMiB);
  EXPECT_EQ(CudaAllocator::SegmentSize(10 * kMiB), 10 * kMiB);
  EXPECT_EQ(CudaAllocator::SegmentSize(10 * kMiB + 512), 12 * kMiB);
}

TEST_F(CudaAllocatorTest, NoBytesAreNoBlock) {
  CudaAllocator allocator;
  EXPECT_EQ(Take(allocator, 0), CudaAllocator::kNoBlock);
  EXPECT_EQ(Allocated(allocator), Figures(0, 0));
  allocator.Release(CudaAllocator::kNoBlock);
}

TEST_F(CudaAllocatorTest, SmallRequestsShareASegmentToItsLastByte) {
  CudaAllocator allocator;
  for (int i = 0; i < 4096; ++i) Take(allocator, 512);
  EXPECT_EQ(Allocated(allocator), Figures(2 * kMiB, 2 * kMiB));
  Take(allocator, 1);
  EXPECT_EQ(Allocated(allocator), Figures(2 * kMiB + 512, 4 * kMiB));
}

TEST_F(CudaAllocatorTest, SmallAndLargeOnesNeverShare) {
  CudaAllocator allocator;
  allocator.Release(Take(allocator, 15 * kMiB));
  Take(allocator, kMiB);
  EXPECT_EQ(Allocated(allocator), Figures(kMiB, 18 * kMiB)) << "although 16 MiB are free in the large pool";
  Take(allocator, kMiB + 1);
  EXPECT_EQ(allocator.usage().reserved, 18 * kMiB);
}

TEST_F(CudaAllocatorTest, ALargeRestOfUpToAMebibyteGoesWithTheBlock) {
  CudaAllocator allocator;
  allocator.Release(Take(allocator, 20 * kMiB));
  const int32_t whole = Take(allocator, 19 * kMiB);
  EXPECT_EQ(Allocated(allocator), Figures(20 * kMiB, 20 * kMiB));
  allocator.Release(whole);
  Take(allocator, 19 * kMiB - 512);
  EXPECT_EQ(Allocated(allocator), Figures(19 * kMiB - 512, 20 * kMiB));
}

TEST_F(CudaAllocatorTest, TheSmallestBlockThatHoldsItServesTheLowestAmongSeveral) {
  CudaAllocator allocator;
  // A segment each.
  const int32_t large = Take(allocator, 40 * kMiB), low = Take(allocator, 30 * kMiB), high = Take(allocator, 30 * kMiB);
  const int64_t low_address = allocator.AddressOf(low), high_address = allocator.AddressOf(high);
  ASSERT_LT(low_address, high_address);
  for (const int32_t block : {high, large, low}) allocator.Release(block);
  EXPECT_EQ(allocator.AddressOf(Take(allocator, 25 * kMiB)), low_address);
  EXPECT_EQ(allocator.AddressOf(Take(allocator, 25 * kMiB)), high_address);
  EXPECT_EQ(allocator.AddressOf(Take(allocator, 5 * kMiB)), low_address + 25 * kMiB) << "what is left of one of 30 MiB";
  EXPECT_EQ(allocator.usage().reserved, 100 * kMiB);
}

TEST_F(CudaAllocatorTest, AFreedBlockJoinsBothNeighbours) {
  CudaAllocator allocator;
  const int32_t a = Take(allocator, 6 * kMiB), b = Take(allocator, 6 * kMiB), c = Take(allocator, 6 * kMiB);
  allocator.Release(a);
  allocator.Release(c);
  const int32_t between = Take(allocator, 9 * kMiB);
  EXPECT_EQ(Allocated(allocator), Figures(15 * kMiB, 40 * kMiB)) << "6 and 8 MiB are free, not side by side";
  allocator.Release(between);
  allocator.Release(b);
  Take(allocator, 20 * kMiB);
  Take(allocator, 20 * kMiB);
  EXPECT_EQ(Allocated(allocator), Figures(40 * kMiB, 40 * kMiB));
}

TEST_F(CudaAllocatorTest, SegmentsSideBySideStayTwo) {
  CudaAllocator allocator;
  const int32_t a = Take(allocator, 20 * kMiB), b = Take(allocator, 20 * kMiB);
  ASSERT_EQ(allocator.AddressOf(b), allocator.AddressOf(a) + 20 * kMiB);
  allocator.Release(a);
  allocator.Release(b);
  Take(allocator, 40 * kMiB);
  EXPECT_EQ(Allocated(allocator), Figures(40 * kMiB, 80 * kMiB));
}

TEST_F(CudaAllocatorTest, TheLimitIsOfWhatIsReserved) {
  CudaAllocator allocator(20 * kMiB);
  Take(allocator, 2 * kMiB);
  EXPECT_FALSE(allocator.Allocate(512).has_value()) << "a small segment would be beyond it, with 18 MiB free in the large pool";
  Take(allocator, 18 * kMiB);
  EXPECT_EQ(Allocated(allocator), Figures(20 * kMiB, 20 * kMiB));
  CudaAllocator tight(20 * kMiB - 1);
  EXPECT_FALSE(tight.Allocate(2 * kMiB).has_value());
}

TEST_F(CudaAllocatorTest, ForWantOfMemoryFreeSegmentsOfBothPoolsAreGivenBackAndItIsTriedOnce) {
  CudaAllocator allocator(64 * kMiB);
  const int32_t kept = Take(allocator, 4 * kMiB);
  allocator.Release(Take(allocator, 30 * kMiB));
  allocator.Release(Take(allocator, 512));
  EXPECT_EQ(Allocated(allocator), Figures(4 * kMiB, 52 * kMiB));
  EXPECT_EQ(allocator.usage().flushes, 0);
  Take(allocator, 44 * kMiB);
  EXPECT_EQ(Allocated(allocator), Figures(48 * kMiB, 64 * kMiB)) << "the segment that is held in part stays";
  EXPECT_EQ(allocator.usage().flushes, 1);
  allocator.Release(kept);
  EXPECT_FALSE(allocator.Allocate(21 * kMiB).has_value());
  EXPECT_EQ(Allocated(allocator), Figures(44 * kMiB, 44 * kMiB)) << "given back all the same";
  EXPECT_EQ(allocator.usage().flushes, 2);
  EXPECT_EQ(allocator.usage().peak_reserved, 64 * kMiB);
  EXPECT_EQ(allocator.usage().peak_allocated, 48 * kMiB);
}

TEST_F(CudaAllocatorTest, ASegmentGivenBackLeavesItsAddresses) {
  CudaAllocator allocator;
  const int32_t first = Take(allocator, 20 * kMiB), second = Take(allocator, 20 * kMiB);
  const int64_t address = allocator.AddressOf(first);
  allocator.Release(first);
  allocator.ReleaseCached();
  EXPECT_GT(allocator.AddressOf(Take(allocator, 22 * kMiB)), allocator.AddressOf(second)) << "it does not fit in there";
  EXPECT_EQ(allocator.AddressOf(Take(allocator, 20 * kMiB)), address);
}

class RandomRequests {
 public:
  explicit RandomRequests(unsigned seed) : random_(seed) {}
  int64_t Bytes() {
    static constexpr int64_t kMost[] = {3'000, 300'000, 3'000'000, 12'000'000, 70'000'000};
    return 1 + static_cast<int64_t>(random_()) % kMost[random_() % std::size(kMost)];
  }
  bool Chance(unsigned percent) { return random_() % 100 < percent; }
  size_t Index(size_t count) { return random_() % count; }

 private:
  std::mt19937 random_;
};

TEST_F(CudaAllocatorTest, WhateverIsAskedBlocksNeverOverlapAndSumsHold) {
  const unsigned seed = std::random_device{}();
  for (unsigned round = 0; round < 40; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << seed + round);
    RandomRequests random(seed + round);
    const int64_t limit = round % 2 == 0 ? 0 : 200 * kMiB + random.Bytes();
    CudaAllocator allocator(limit);
    std::map<int64_t, int32_t> live;  // by address
    int64_t allocated = 0;
    for (int i = 0; i < 1'000; ++i) {
      if (!live.empty() && random.Chance(49)) {
        const auto block = std::next(live.begin(), static_cast<std::ptrdiff_t>(random.Index(live.size())));
        allocated -= allocator.SizeOf(block->second);
        allocator.Release(block->second);
        live.erase(block);
      } else if (const int64_t bytes = random.Bytes(); const auto block = allocator.Allocate(bytes)) {
        const int64_t begin = allocator.AddressOf(*block), end = begin + allocator.SizeOf(*block);
        ASSERT_GE(allocator.SizeOf(*block), CudaAllocator::BlockSize(bytes));
        ASSERT_LE(allocator.SizeOf(*block), CudaAllocator::BlockSize(bytes) + (bytes > kMiB ? kMiB : 0));
        const auto next = live.lower_bound(begin);
        ASSERT_TRUE(next == live.end() || end <= next->first);
        ASSERT_TRUE(next == live.begin() || std::prev(next)->first + allocator.SizeOf(std::prev(next)->second) <= begin);
        live[begin] = *block;
        allocated += allocator.SizeOf(*block);
      } else {
        ASSERT_GT(limit, 0);
      }
      const CudaAllocator::Usage& usage = allocator.usage();
      ASSERT_EQ(usage.allocated, allocated);
      ASSERT_GE(usage.reserved, allocated);
      ASSERT_EQ(usage.reserved % (2 * kMiB), 0);
      ASSERT_TRUE(limit == 0 || usage.reserved <= limit);
      ASSERT_GE(usage.peak_allocated, allocated);
      ASSERT_GE(usage.peak_reserved, std::max(usage.reserved, usage.peak_allocated));
    }
    for (const auto& [address, block] : live) allocator.Release(block);
    allocator.ReleaseCached();
    EXPECT_EQ(Allocated(allocator), Figures(0, 0)) << "all of it joined to whole segments again";
  }
}

// A step with releases in any order; some blocks stay.
Trace RandomStep(RandomRequests& random) {
  Trace trace;
  trace.places = {"", "forward a", "backward a"};
  std::vector<int32_t> live;
  int32_t requests = 0;
  for (int i = 0; i < 400; ++i) {
    const auto place = static_cast<int32_t>(1 + i / 200);
    if (!live.empty() && random.Chance(i < 200 ? 30 : 60)) {
      std::swap(live[random.Index(live.size())], live.back());
      trace.events.push_back({live.back(), true, Category::kRuntime, place, 0});
      live.pop_back();
    } else {
      const int64_t bytes = random.Chance(5) ? 0 : random.Bytes();
      trace.events.push_back({requests, false, random.Chance(20) ? Category::kWorkspace : Category::kActivations, place, bytes});
      live.push_back(requests++);
    }
  }
  return trace;
}

TEST(ReplayOnCuda, TellsTheWorstMomentByCategoryAndPlace) {
  Trace step;
  step.places = {"", "forward a", "backward a"};
  step.events = {{0, false, Category::kActivations, 1, 30 * kMiB},
                 {1, false, Category::kWorkspace, 1, 100},
                 {1, true, Category::kRuntime, 1, 0},
                 {2, false, Category::kGradients, 2, 12 * kMiB},
                 {0, true, Category::kRuntime, 2, 0}};
  const std::vector<std::pair<Category, int64_t>> state = {
      {Category::kParameters, 3 * kMiB}, {Category::kOptimizer, 700}, {Category::kOptimizer, 0}};
  const CudaReplay replay = ReplayOnCuda(state, step, 2, 0);
  EXPECT_TRUE(replay.fits);
  // 20 for the parameters, 2 for small ones, 30 for the activations; the 12 of the gradient are cut from the 17 that are left of the 20.
  EXPECT_EQ(replay.peak_reserved, 52 * kMiB);
  EXPECT_EQ(replay.peak_allocated, 45 * kMiB + 1024);
  EXPECT_EQ(replay.place, "backward a");
  EXPECT_EQ(replay.by_category[Category::kParameters], 3 * kMiB);
  EXPECT_EQ(replay.by_category[Category::kOptimizer], 1024);
  EXPECT_EQ(replay.by_category[Category::kActivations], 30 * kMiB);
  EXPECT_EQ(replay.by_category[Category::kGradients], 12 * kMiB);
  EXPECT_EQ(replay.by_category[Category::kWorkspace], 0);
  EXPECT_EQ(replay.by_category.Total(), replay.peak_reserved);
}

TEST(ReplayOnCuda, TheStateAloneHasNoPlace) {
  const CudaReplay replay = ReplayOnCuda({{Category::kParameters, 5 * kMiB}}, Trace{}, 1, 0);
  EXPECT_EQ(replay.peak_allocated, 5 * kMiB);
  EXPECT_EQ(replay.place, "");
}

TEST(ReplayOnCuda, WhatAStepLeavesIsReleasedBeforeTheNext) {
  Trace step;
  step.places = {""};
  step.events = {{0, false, Category::kGradients, 0, 16 * kMiB}};
  EXPECT_EQ(ReplayOnCuda({}, step, 5, 0).peak_reserved, 16 * kMiB);
}

TEST(ReplayOnCuda, ASecondStepMayReserveMoreThanTheFirst) {
  Trace step;
  step.places = {""};
  for (const int32_t mebibytes : {4, 10, 12}) {
    step.events.push_back({static_cast<int32_t>(step.events.size()), false, Category::kActivations, 0, mebibytes * kMiB});
  }
  EXPECT_EQ(ReplayOnCuda({}, step, 1, 0).peak_reserved, (20 + 12) * kMiB);
  // Then the 4 are cut from the segment of 12, which the 12 need.
  EXPECT_EQ(ReplayOnCuda({}, step, 2, 0).peak_reserved, (20 + 12 + 12) * kMiB);
  EXPECT_EQ(ReplayOnCuda({}, step, 2, 0).peak_allocated, 26 * kMiB);
}

TEST(ReplayOnCuda, WithALimitOfWhatItReservesItIsTheSameBelowWhatIsLiveItDoesNotFit) {
  const unsigned seed = std::random_device{}();
  for (unsigned round = 0; round < 30; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << seed + round);
    RandomRequests random(seed + round);
    const Trace step = RandomStep(random);
    const std::vector<std::pair<Category, int64_t>> state = {{Category::kParameters, random.Bytes()},
                                                             {Category::kOptimizer, random.Bytes()}};
    const CudaReplay free = ReplayOnCuda(state, step, 3, 0);
    ASSERT_TRUE(free.fits);
    EXPECT_EQ(free.by_category.Total(), free.peak_reserved);
    for (const int64_t more : {int64_t{0}, int64_t{1}, 300 * kMiB}) {
      const CudaReplay limited = ReplayOnCuda(state, step, 3, free.peak_reserved + more);
      EXPECT_TRUE(limited.fits);
      EXPECT_EQ(limited.peak_reserved, free.peak_reserved);
      EXPECT_EQ(limited.peak_allocated, free.peak_allocated);
      EXPECT_EQ(limited.place, free.place);
    }
    int64_t least = 0;  // as rounded, without what goes with large blocks uncut
    {
      std::vector<int64_t> sizes;
      int64_t live = CudaAllocator::BlockSize(state[0].second) + CudaAllocator::BlockSize(state[1].second);
      for (const Trace::Event& event : step.events) {
        if (!event.release) sizes.push_back(event.bytes == 0 ? 0 : CudaAllocator::BlockSize(event.bytes));
        live += event.release ? -sizes[static_cast<size_t>(event.block)] : sizes.back();
        least = std::max(least, live);
      }
    }
    const CudaReplay refused = ReplayOnCuda(state, step, 3, least - 1);
    EXPECT_FALSE(refused.fits);
    EXPECT_LT(refused.peak_reserved, least);
    // Between the two segments are given back and asked for again; what is reserved stays within the limit.
    const CudaReplay between = ReplayOnCuda(state, step, 3, (least + free.peak_reserved) / 2);
    EXPECT_LE(between.peak_reserved, (least + free.peak_reserved) / 2);
  }
}

}  // namespace
}  // namespace lockstep::memory
