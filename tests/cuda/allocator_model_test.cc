// memory's model of the CUDA allocator beside the real one: after each event of a sequence both hold the same bytes at the same addresses,
// have reserved as much, and have refused the same requests.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "tests/cuda/side_by_side.h"

namespace lockstep {
namespace {

using LimitBy = RealAllocator::LimitBy;

constexpr int64_t kMiB = 1 << 20;

TEST(CudaAllocatorModel, SizesAtEveryEdgeTakeWhatTheyTake) {
  for (const int64_t edge : {512L, kMiB, 2 * kMiB, 9 * kMiB, 10 * kMiB, 12 * kMiB, 19 * kMiB, 20 * kMiB, 22 * kMiB, 1024 * kMiB}) {
    for (const int64_t beside : {-1024, -513, -512, -511, -1, 0, 1, 511, 512, 513, 1024}) {
      const int64_t bytes = edge + beside;
      if (bytes <= 0) continue;
      SideBySide both;
      ASSERT_TRUE(both.Allocate(bytes).has_value());
      EXPECT_EQ(both.difference(), "") << bytes;
      EXPECT_EQ(both.real().reserved, memory::CudaAllocator::SegmentSize(memory::CudaAllocator::BlockSize(bytes))) << bytes;
      EXPECT_GE(both.real().allocated, memory::CudaAllocator::BlockSize(bytes)) << bytes;
    }
  }
}

TEST(CudaAllocatorModel, RestsAtEveryEdgeAreCutOrNot) {
  for (const int64_t segment : {2 * kMiB, 20 * kMiB, 30 * kMiB}) {
    for (const int64_t edge : {int64_t{512}, kMiB, 2 * kMiB}) {
      for (const int64_t beside : {-512, -1, 0, 1, 512}) {
        const int64_t bytes = segment - edge + beside;
        if (bytes <= 0 || (segment == 2 * kMiB && bytes > kMiB)) continue;
        SideBySide both;
        // A free segment of that size.
        both.Release(*both.Allocate(segment == 2 * kMiB ? kMiB : segment));
        ASSERT_TRUE(both.Allocate(bytes).has_value());
        ASSERT_TRUE(both.Allocate(700).has_value());
        ASSERT_TRUE(both.Allocate(kMiB + 1).has_value());
        EXPECT_EQ(both.difference(), "") << bytes << " of " << segment;
      }
    }
  }
}

struct Sizes {
  const char* name;
  std::vector<int64_t> most;
};

// Requests and releases in any order. How many were refused, or -1 and a failure where the two differ.
int RandomEvents(SideBySide& both, std::mt19937& random, const Sizes& sizes, int events) {
  std::vector<size_t> live;
  int refused = 0;
  // Which of the two is more likely changes, so that much is held, and little.
  unsigned releases = 30;
  for (int i = 0; i < events; ++i) {
    if (i % 200 == 0) releases = 30 + random() % 40;
    if (!live.empty() && random() % 100 < releases) {
      std::swap(live[random() % live.size()], live.back());
      both.Release(live.back());
      live.pop_back();
    } else if (const auto block = both.Allocate(1 + static_cast<int64_t>(random()) % sizes.most[random() % sizes.most.size()])) {
      live.push_back(*block);
    } else {
      ++refused;
    }
    if (!both.difference().empty()) {
      ADD_FAILURE() << both.difference();
      return -1;
    }
  }
  return refused;
}

const std::vector<Sizes>& Mixtures() {
  static const auto* const kMixtures = new std::vector<Sizes>{{"small", {600, 20'000, kMiB}},
                                                              {"middle", {kMiB, 5 * kMiB, 10 * kMiB}},
                                                              {"large", {12 * kMiB, 40 * kMiB, 200 * kMiB}},
                                                              {"layers", {4'096, 300'000, 3'000'000, 30'000'000}},
                                                              {"all", {600, 100'000, 2 * kMiB, 11 * kMiB, 60 * kMiB}}};
  return *kMixtures;
}

TEST(CudaAllocatorModel, RandomRequestsAreServedFromTheSameAddresses) {
  const unsigned seed = std::random_device{}();
  for (const Sizes& sizes : Mixtures()) {
    for (unsigned round = 0; round < 12; ++round) {
      SCOPED_TRACE(testing::Message() << sizes.name << ", seed " << seed + round);
      std::mt19937 random(seed + round);
      SideBySide both;
      ASSERT_EQ(RandomEvents(both, random, sizes, 2'000), 0);
      EXPECT_GE(both.real().peak_reserved, both.real().peak_allocated);
    }
  }
}

TEST(CudaAllocatorModel, UnderALimitTheSameRequestsAreRefused) {
  const unsigned seed = std::random_device{}();
  for (const LimitBy by : {LimitBy::kFraction, LimitBy::kDevice}) {
    int64_t refused = 0, flushes = 0;
    for (const Sizes& sizes : Mixtures()) {
      for (unsigned round = 0; round < 12; ++round) {
        SCOPED_TRACE(testing::Message() << sizes.name << ", limit by " << (by == LimitBy::kDevice ? "device" : "fraction") << ", seed "
                                        << seed + round);
        std::mt19937 random(seed + round);
        const int64_t limit = *std::max_element(sizes.most.begin(), sizes.most.end()) * (2 + round) + random() % kMiB;
        SideBySide both(limit, by);
        const int these = RandomEvents(both, random, sizes, 2'000);
        ASSERT_GE(these, 0);
        EXPECT_LE(both.real().peak_reserved, limit);
        refused += these;
        flushes += both.real().flushes;
      }
    }
    EXPECT_GT(refused, 0);
    EXPECT_GT(flushes, refused) << "some requests are served once segments were given back";
  }
}

}  // namespace
}  // namespace lockstep
