#include "base/bounded_queue.h"

#include <gtest/gtest.h>

#include <thread>

namespace lockstep {
namespace {

TEST(BoundedQueue, KeepsOrderAndBound) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(absl::ZeroDuration()), std::nullopt);
}

TEST(BoundedQueue, CloseWakesProducerAndDrainsConsumer) {
  BoundedQueue<int> queue(1);
  ASSERT_TRUE(queue.Push(1));
  bool pushed = true;
  std::thread producer([&] { pushed = queue.Push(2); });
  queue.Close();
  producer.join();
  EXPECT_FALSE(pushed);
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueue, EveryItemOnceThroughManyThreads) {
  BoundedQueue<int> queue(3);
  constexpr int kEach = 1000;
  std::vector<std::thread> producers;
  for (int p = 0; p < 3; ++p) {
    producers.emplace_back([&queue, p] {
      for (int i = 0; i < kEach; ++i) queue.Push(p * kEach + i);
    });
  }
  std::vector<int> seen(3 * kEach, 0);
  std::thread consumer([&] {
    while (auto item = queue.Pop()) ++seen[*item];
  });
  for (auto& producer : producers) producer.join();
  queue.Close();
  consumer.join();
  for (int count : seen) EXPECT_EQ(count, 1);
}

}  // namespace
}  // namespace lockstep
