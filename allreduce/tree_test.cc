#include "allreduce/tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep::allreduce {
namespace {

using testing::ElementsAre;

TEST(Tree, LeftChildHoldsTheLargestPowerOfTwoBelowItsParent) {
  EXPECT_EQ(SplitOf({0, 2}), 1);
  EXPECT_EQ(SplitOf({0, 3}), 2);
  EXPECT_EQ(SplitOf({0, 8}), 4);
  EXPECT_EQ(SplitOf({0, 9}), 8);
  EXPECT_EQ(SplitOf({8, 13}), 12);
}

TEST(Tree, AnAlignedRunIsOneSubtreeAndAnotherItsMaximalOnes) {
  EXPECT_THAT(MaximalSubtrees(8, {4, 8}), ElementsAre(Subtree{4, 8}));
  EXPECT_THAT(MaximalSubtrees(8, {3, 6}), ElementsAre(Subtree{3, 4}, Subtree{4, 6}));
  EXPECT_THAT(MaximalSubtrees(6, {4, 6}), ElementsAre(Subtree{4, 6}));
  EXPECT_THAT(MaximalSubtrees(7, {1, 7}), ElementsAre(Subtree{1, 2}, Subtree{2, 4}, Subtree{4, 7}));
  EXPECT_THAT(MaximalSubtrees(5, {2, 2}), ElementsAre());
}

TEST(Tree, MaximalSubtreesMakeUpTheirRunAndNoTwoAreSiblings) {
  for (int leaves = 1; leaves <= 33; ++leaves) {
    for (int begin = 0; begin < leaves; ++begin) {
      for (int end = begin + 1; end <= leaves; ++end) {
        int next = begin;
        for (const Subtree& subtree : MaximalSubtrees(leaves, {begin, end})) {
          EXPECT_EQ(subtree.begin, next);
          next = subtree.end;
          // A node of the tree, and its own maximal subtree.
          EXPECT_THAT(MaximalSubtrees(leaves, subtree), ElementsAre(subtree));
        }
        EXPECT_EQ(next, end);
      }
    }
  }
}

TEST(Tree, EvenRunsDifferByOneAndHaveTheFewestSubtrees) {
  for (int leaves = 1; leaves <= 12; ++leaves) {
    for (int parts = 1; parts <= leaves; ++parts) {
      const auto count = [&](const std::vector<LeafRange>& runs) {
        size_t subtrees = 0;
        for (const LeafRange& run : runs) subtrees += MaximalSubtrees(leaves, run).size();
        return subtrees;
      };
      const std::vector<LeafRange> runs = EvenRuns(leaves, parts);
      ASSERT_EQ(runs.size(), static_cast<size_t>(parts));
      int next = 0;
      for (const LeafRange& run : runs) {
        EXPECT_EQ(run.begin, next);
        EXPECT_TRUE(run.size() == leaves / parts || run.size() == leaves / parts + 1);
        next = run.end;
      }
      EXPECT_EQ(next, leaves);
      // Against all choices of which runs are the longer ones.
      for (unsigned longer = 0; longer < 1u << parts; ++longer) {
        if (__builtin_popcount(longer) != leaves % parts) continue;
        std::vector<LeafRange> others;
        int begin = 0;
        for (int i = 0; i < parts; ++i) {
          others.push_back({begin, begin + leaves / parts + static_cast<int>(longer >> i & 1)});
          begin = others.back().end;
        }
        EXPECT_LE(count(runs), count(others)) << leaves << " leaves in " << parts;
      }
    }
  }
}

}  // namespace
}  // namespace lockstep::allreduce
