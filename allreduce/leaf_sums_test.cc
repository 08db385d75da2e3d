#include "allreduce/leaf_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <thread>

#include "allreduce/testing_gradients.h"

namespace lockstep::allreduce {
namespace {

using testing::Each;

// A rank's sums, with memory of its own.
template <typename T>
struct Fixture {
  Fixture(int leaves, std::vector<LeafRange> runs, const Layout& of_layout)
      : layout(of_layout),
        run{runs.front().begin, runs.back().end},
        subtrees(MaximalSubtrees(leaves, run)),
        vectors(subtrees.size()),
        completed(layout.buckets.size()) {
    std::vector<std::span<T>> spans;
    for (std::vector<T>& vector : vectors) {
      vector.resize(layout.elements);
      spans.emplace_back(vector);
    }
    sums = std::make_unique<LeafSums<T>>(leaves, std::move(runs), layout, spans, [this](int b) { ++completed[static_cast<size_t>(b)]; });
  }

  std::vector<int> Completed() const { return {completed.begin(), completed.end()}; }

  Layout layout;
  LeafRange run;
  std::vector<Subtree> subtrees;
  std::vector<std::vector<T>> vectors;
  std::vector<std::atomic<int>> completed;
  std::unique_ptr<LeafSums<T>> sums;
};

template <typename T>
void ExpectSameBits(const std::vector<T>& a, const std::vector<T>& b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(T)), 0);
}

template <typename T>
void AddRunInRandomOrder(const Fixture<T>& fixture, const std::vector<std::vector<T>>& gradients, LeafRange run, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int> order(fixture.layout.segments.size());
  std::iota(order.begin(), order.end(), 0);
  for (int leaf = run.begin; leaf < run.end; ++leaf) {
    std::shuffle(order.begin(), order.end(), random);
    for (const int segment : order) {
      const T* values = gradients[static_cast<size_t>(leaf)].data() + fixture.layout.segments[static_cast<size_t>(segment)].offset;
      ASSERT_TRUE(fixture.sums->Add(leaf, segment, values).ok());
    }
  }
}

template <typename T>
void SumsLikeTheTree(uint64_t seed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", " << sizeof(T) << " bytes");
  std::mt19937_64 random(seed);
  const int leaves = std::uniform_int_distribution<int>(1, 24)(random);
  const int begin = std::uniform_int_distribution<int>(0, leaves - 1)(random);
  const LeafRange run{begin, std::uniform_int_distribution<int>(begin + 1, leaves)(random)};
  const auto runs = RandomRuns(run, std::uniform_int_distribution<int>(1, std::min(run.size(), 4))(random), random);
  Fixture<T> fixture(leaves, runs, RandomLayout(ElementOf<T>(), random));
  for (int step = 0; step < 2; ++step) {
    const auto gradients = RandomGradients<T>(fixture.layout, leaves, random);
    ASSERT_TRUE(fixture.sums->BeginStep().ok());
    std::vector<std::thread> threads;
    for (const LeafRange& thread_run : runs) {
      threads.emplace_back([&, thread_run, thread_seed = random()] { AddRunInRandomOrder(fixture, gradients, thread_run, thread_seed); });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < fixture.subtrees.size(); ++i) {
      ExpectSameBits(fixture.vectors[i], SumAlongTree(gradients, fixture.subtrees[i]));
    }
    EXPECT_THAT(fixture.Completed(), Each(step + 1));
  }
}

TEST(LeafSums, SameBitsAsTheTreeForAnyRunsThreadsAndOrder) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SumsLikeTheTree<float>(seed);
    SumsLikeTheTree<double>(seed);
  }
}

TEST(LeafSums, LanesAreFewAndNoneWhereSumsAreMadeInPlace) {
  const auto lanes = [](int leaves, std::vector<LeafRange> runs) { return LeafSums<float>::CountLanes(leaves, runs); };
  EXPECT_EQ(lanes(1, {{0, 1}}), 0);
  EXPECT_EQ(lanes(4, {{0, 2}}), 0);          // one thread, two leaves
  EXPECT_EQ(lanes(4, {{0, 1}, {1, 2}}), 1);  // two threads, a leaf each
  EXPECT_EQ(lanes(8, {{0, 8}}), 2);          // one thread: the depth of its tree, less one
  EXPECT_EQ(lanes(1024, {{0, 1024}}), 9);
  EXPECT_EQ(lanes(8, {{0, 4}, {4, 8}}), 3);
  EXPECT_EQ(lanes(8, {{3, 6}}), 0);  // 3 and [4,6) have a vector each
}

TEST(LeafSums, ZerosForWhatIsMissingAreAddedLikeOthers) {
  const size_t counts[] = {3, 5};
  Fixture<float> fixture(3, {{0, 3}}, MakeLayout(counts, Element::kFloat32, 1 << 20));
  std::mt19937_64 random(1);
  auto gradients = RandomGradients<float>(fixture.layout, 3, random);
  gradients[0][1] = -0.0f;
  gradients[1][1] = -0.0f;
  ASSERT_TRUE(fixture.sums->BeginStep().ok());
  ASSERT_TRUE(fixture.sums->Add(0, 1, gradients[0].data() + 16).ok());
  ASSERT_TRUE(fixture.sums->Add(0, 0, gradients[0].data()).ok());
  ASSERT_TRUE(fixture.sums->CompleteWithZeros(0).ok());
  ASSERT_TRUE(fixture.sums->Add(1, 0, gradients[1].data()).ok());
  ASSERT_TRUE(fixture.sums->CompleteWithZeros(1).ok());
  ASSERT_TRUE(fixture.sums->CompleteWithZeros(2).ok());
  std::fill(gradients[1].begin() + 16, gradients[1].end(), 0.0f);
  std::fill(gradients[2].begin(), gradients[2].end(), 0.0f);
  ExpectSameBits(fixture.vectors[0], SumAlongTree(gradients, {0, 3}));
  EXPECT_FALSE(std::signbit(fixture.vectors[0][1]));
  EXPECT_THAT(fixture.Completed(), Each(1));
}

TEST(LeafSums, MisuseIsRefusedAndNamed) {
  const size_t counts[] = {4};
  const float values[4] = {};
  Fixture<float> fixture(4, {{1, 3}}, MakeLayout(counts, Element::kFloat32, 64));
  EXPECT_TRUE(absl::IsFailedPrecondition(fixture.sums->Add(1, 0, values)));  // no step
  ASSERT_TRUE(fixture.sums->BeginStep().ok());
  EXPECT_TRUE(absl::IsInvalidArgument(fixture.sums->Add(0, 0, values)));
  EXPECT_TRUE(absl::IsInvalidArgument(fixture.sums->Add(3, 0, values)));
  EXPECT_TRUE(absl::IsInvalidArgument(fixture.sums->Add(1, 1, values)));
  ASSERT_TRUE(fixture.sums->Add(1, 0, values).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(fixture.sums->Add(1, 0, values)));
  EXPECT_TRUE(absl::IsFailedPrecondition(fixture.sums->BeginStep()));
  ASSERT_TRUE(fixture.sums->CompleteWithZeros(2).ok());
  EXPECT_TRUE(fixture.sums->BeginStep().ok());
}

TEST(LeafSums, LeavesOutOfTheirThreadsOrderAreRefused) {
  const size_t counts[] = {4};
  const float values[4] = {};
  Fixture<float> fixture(8, {{0, 8}}, MakeLayout(counts, Element::kFloat32, 64));
  ASSERT_TRUE(fixture.sums->BeginStep().ok());
  ASSERT_TRUE(fixture.sums->Add(1, 0, values).ok());
  ASSERT_TRUE(fixture.sums->Add(3, 0, values).ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(fixture.sums->Add(5, 0, values)));
}

TEST(LeafSums, WithoutSegmentsTheOnlyBucketIsCompleteAtOnce) {
  Fixture<double> fixture(2, {{0, 2}}, MakeLayout({}, Element::kFloat64, 64));
  ASSERT_TRUE(fixture.sums->BeginStep().ok());
  EXPECT_THAT(fixture.Completed(), Each(1));
}

}  // namespace
}  // namespace lockstep::allreduce
