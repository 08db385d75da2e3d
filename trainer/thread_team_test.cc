#include "trainer/thread_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>

namespace lockstep {
namespace {

TEST(ThreadTeam, EveryThreadRunsEveryRoundOnceOnTheSameThread) {
  std::vector<std::thread::id> prepared(3);
  ThreadTeam team(3, [&](int i) { prepared[static_cast<size_t>(i)] = std::this_thread::get_id(); });
  EXPECT_EQ(std::set<std::thread::id>(prepared.begin(), prepared.end()).size(), 3u);
  std::vector<int> rounds(3, 0);
  for (int round = 0; round < 2000; ++round) {
    team.Run([&](int i) {
      ++rounds[static_cast<size_t>(i)];
      EXPECT_EQ(prepared[static_cast<size_t>(i)], std::this_thread::get_id());
    });
    ASSERT_EQ(rounds, std::vector<int>(3, round + 1));
  }
}

}  // namespace
}  // namespace lockstep
