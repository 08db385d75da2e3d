#include "memory/replay.h"

#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "memory/block_pool.h"

namespace lockstep::memory {
namespace {

constexpr int64_t kMiB = 1 << 20;

Trace::Event Request(int32_t block, int64_t bytes) { return {block, false, Category::kActivations, 0, bytes}; }
Trace::Event Release(int32_t block) { return {block, true, Category::kActivations, 0, 0}; }

TEST(KeptBeyondPeak, NothingWhereBlocksFollowOneAnother) {
  const Trace stack{{Request(0, 8 * kMiB), Request(1, 4 * kMiB), Release(1), Release(0)}, {""}};
  EXPECT_EQ(KeptBeyondPeak(stack, kMiB, 0), 0);
  EXPECT_EQ(KeptBeyondPeak(stack, kMiB, 2 * kMiB), 0);
}

TEST(KeptBeyondPeak, TheHoleThatALargerRequestDoesNotFit) {
  // 4 live with a hole of 4 beside it; the 5 that come next find no room in the hole: 9 are live, and 13 are kept.
  const Trace hole{{Request(0, 4 * kMiB), Request(1, 4 * kMiB), Release(0), Request(2, 5 * kMiB), Release(1), Release(2)}, {""}};
  EXPECT_EQ(KeptBeyondPeak(hole, kMiB, 0), 4 * kMiB);
}

TEST(KeptBeyondPeak, WithinTheSlackOfAPool) {
  std::mt19937 random(3);
  const int64_t slack = BlockPool::Options{}.slack_bytes;
  int64_t most = 0;
  for (int run = 0; run < 50; ++run) {
    Trace trace{{}, {""}};
    std::vector<int32_t> live;
    for (int32_t block = 0; block < 300; ++block) {
      trace.events.push_back(Request(block, 1 + static_cast<int64_t>(random() % (8 * kMiB))));
      live.push_back(block);
      while (live.size() > 20 || (!live.empty() && random() % 3 == 0)) {
        const size_t at = random() % live.size();
        trace.events.push_back(Release(live[at]));
        live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
      }
    }
    const int64_t kept = KeptBeyondPeak(trace, 10 * kMiB, 10 * kMiB);
    EXPECT_GE(kept, 0);
    EXPECT_LE(kept, slack);
    most = std::max(most, kept);
  }
  EXPECT_GT(most, 0);
}

TEST(KeptBeyondPeak, WhatNoMachineHasIsAnsweredWithTheBound) {
  const Trace huge{{Request(0, int64_t{1} << 60), Release(0)}, {""}};
  EXPECT_EQ(KeptBeyondPeak(huge, kMiB, 0), BlockPool::Options{}.slack_bytes);
}

}  // namespace
}  // namespace lockstep::memory
