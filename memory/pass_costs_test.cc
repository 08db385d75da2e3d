#include "memory/pass_costs.h"

#include <gtest/gtest.h>

#include "memory/block_pool.h"

namespace lockstep::memory {
namespace {

// A trace by hand, in blocks of the pool's sizes.
class ByHand {
 public:
  static constexpr int64_t kUnit = 1 << 20;
  int32_t Ask(int64_t units) {
    trace.events.push_back({blocks_, false, Category::kActivations, 0, units * kUnit});
    return blocks_++;
  }
  void Release(int32_t block) { trace.events.push_back({block, true, Category::kRuntime, 0, 0}); }
  size_t now() const { return trace.events.size(); }
  static int64_t Size(int64_t units) { return BlockPool::BlockSize(static_cast<size_t>(units * kUnit)); }

  Trace trace = {{}, {""}};

 private:
  int32_t blocks_ = 0;
};

// Two calls: the first keeps its output of 4 and takes 2 beside it; the second writes its own over what it makes.
TEST(PassCosts, WhatBackwardTakesIsOfTheCallWhoseBackwardItIs) {
  ByHand pass;
  PassMarks marks;
  marks.calls.push_back(pass.now());
  const int32_t scratch = pass.Ask(2), first = pass.Ask(4);
  pass.Release(scratch);
  marks.calls.push_back(pass.now());
  const int32_t second = pass.Ask(8);
  marks.outputs = {first, second};
  marks.seconds = {1, 2};
  marks.loss = marks.backward = pass.now();
  marks.backward_seconds = 3;
  // The gradient of the second's output comes to lie where that lay; that of the first's does not.
  marks.backward_calls.emplace_back(1, pass.now());
  const int32_t gradient = pass.Ask(3);
  pass.Release(second);
  pass.Release(first);
  marks.backward_calls.emplace_back(0, pass.now());
  const int32_t more = pass.Ask(5);
  pass.Release(gradient);
  pass.Release(more);
  marks.end = pass.now();
  // Of another micro-batch.
  pass.Release(pass.Ask(100));

  const PassCosts costs = CostsOf(pass.trace, marks, {{-1, 0, 0}, {0, 1, 1}, {1, 2, 2}}, {true, true}, {true, false});
  ASSERT_EQ(costs.calls.size(), 3U);
  EXPECT_EQ(costs.calls[0].kept, ByHand::Size(4));
  EXPECT_EQ(costs.calls[1].kept, ByHand::Size(8));
  EXPECT_EQ(costs.calls[2].kept, 0);
  EXPECT_EQ(costs.calls[0].forward, ByHand::Size(2));
  EXPECT_EQ(costs.calls[1].forward, 0);
  EXPECT_EQ(costs.calls[1].beside, ByHand::Size(3));
  EXPECT_EQ(costs.calls[0].beside, ByHand::Size(3) + ByHand::Size(5) - ByHand::Size(4));
  EXPECT_TRUE(costs.calls[1].gradient_over_output);
  EXPECT_FALSE(costs.calls[0].gradient_over_output);
  EXPECT_TRUE(costs.calls[0].takes_output);
  EXPECT_DOUBLE_EQ(costs.seconds, 6);
  EXPECT_EQ(costs.values[0].bytes, 0);
  EXPECT_TRUE(costs.values[1].kept);
  EXPECT_EQ(costs.values[1].bytes, ByHand::Size(4));
}

TEST(PassMarks, TheLeastSecondsAreThoseOfAnySample) {
  PassMarks marks, other;
  marks.seconds = {4, 9};
  marks.backward_seconds = 20;
  other.seconds = {6, 6};
  other.backward_seconds = 18;
  marks.TakeLeastSeconds(2, other, 3);
  EXPECT_EQ(marks.seconds, (std::vector<double>{4, 4}));
  EXPECT_EQ(marks.backward_seconds, 12);
}

TEST(PassCosts, WhereACallWritesOverAnothersOutputThatIsItsOwn) {
  ByHand pass;
  PassMarks marks;
  marks.calls.push_back(pass.now());
  const int32_t block = pass.Ask(4);
  marks.calls.push_back(pass.now());
  marks.outputs = {block, block};
  marks.seconds = {1, 1};
  marks.loss = marks.backward = marks.end = pass.now();
  const PassCosts costs = CostsOf(pass.trace, marks, {{0, 1, 1}, {1, 2, 2}}, {true, true}, {false, false});
  EXPECT_EQ(costs.calls[0].kept, 0);
  EXPECT_EQ(costs.calls[1].kept, ByHand::Size(4));
  EXPECT_FALSE(costs.values[0].kept);
  EXPECT_TRUE(costs.values[1].kept);
}

}  // namespace
}  // namespace lockstep::memory
