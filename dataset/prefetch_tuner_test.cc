#include "dataset/prefetch_tuner.h"

#include <functional>
#include <queue>
#include <vector>

#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

using Waited = PrefetchTuner::Waited;

constexpr PrefetchTuner::Bounds kBounds{.least_depth = 2, .most_depth = 32, .most_threads = 8};

// Threads that each fill a batch at a time, and training that takes one after the other, on a clock of its own: milliseconds.
struct Simulated {
  double total = 0;
  double mean_held = 0;  // batches, over the last half
  int depth = 0, threads = 0;
};
Simulated Simulate(PrefetchTuner::Bounds bounds, bool tuned, int batches, const std::function<double(int)>& decode,
                   const std::function<double(int)>& train) {
  PrefetchTuner tuner(bounds);
  const auto depth = [&] { return tuned ? tuner.depth() : bounds.most_depth; };
  const auto threads = [&] { return tuned ? tuner.threads() : bounds.most_threads; };
  std::priority_queue<std::pair<double, int>, std::vector<std::pair<double, int>>, std::greater<>> filling;  // until when, batch
  std::vector<bool> complete(static_cast<size_t>(batches), false);
  int opened = 0, returned = 0, ready = 0;
  double now = 0, held = 0;
  const auto open = [&] {
    while (opened < batches && opened - returned < depth() && static_cast<int>(filling.size()) < threads()) {
      filling.emplace(now + decode(opened), opened);
      ++opened;
    }
  };
  const auto fill_until = [&](double until) {
    while (!filling.empty() && filling.top().first <= until) {
      now = filling.top().first;
      complete[static_cast<size_t>(filling.top().second)] = true;
      ++ready;
      filling.pop();
      open();
    }
    now = std::max(now, until);
  };
  for (int batch = 0; batch < batches; ++batch) {
    open();
    fill_until(now);
    Waited waited = Waited::kNot;
    if (!complete[static_cast<size_t>(batch)]) {
      waited = static_cast<int>(filling.size()) < threads() ? Waited::kForDepth : Waited::kForThreads;
      while (!complete[static_cast<size_t>(batch)]) fill_until(filling.top().first);
    }
    --ready;
    tuner.Took(waited, ready);
    if (batch >= batches / 2) held += (opened - returned) * 2.0 / batches;
    fill_until(now + train(batch));
    ++returned;
  }
  return {now, held, tuner.depth(), tuner.threads()};
}

TEST(PrefetchTuner, StaysSmallWhereTrainingIsTheSlowOne) {
  const Simulated run = Simulate(
      kBounds, true, 2'000, [](int) { return 1.0; }, [](int) { return 10.0; });
  EXPECT_EQ(run.depth, kBounds.least_depth);
  EXPECT_LE(run.threads, 2);
  EXPECT_LE(run.total, 2'000 * 10.0 * 1.001);
  const Simulated fixed = Simulate(
      kBounds, false, 2'000, [](int) { return 1.0; }, [](int) { return 10.0; });
  EXPECT_LT(run.mean_held, fixed.mean_held / 10) << "memory that would be for nothing";
}

TEST(PrefetchTuner, TakesTheThreadsThatASlowDecoderNeeds) {
  const auto decode = [](int) { return 45.0; };
  const auto train = [](int) { return 10.0; };
  const Simulated run = Simulate(kBounds, true, 2'000, decode, train);
  EXPECT_GE(run.threads, 5);
  EXPECT_LE(run.total, 1.02 * Simulate(kBounds, false, 2'000, decode, train).total);
}

TEST(PrefetchTuner, ReadsAheadOfBursts) {
  // Now and then a batch is twenty times as dear; eight or so ahead bridge it.
  const auto decode = [](int batch) { return batch % 40 == 39 ? 100.0 : 5.0; };
  const auto train = [](int) { return 10.0; };
  const PrefetchTuner::Bounds shallow{.least_depth = 2, .most_depth = 2, .most_threads = 8};
  const Simulated run = Simulate(kBounds, true, 4'000, decode, train);
  const double best = Simulate(kBounds, false, 4'000, decode, train).total;
  EXPECT_LE(run.total, 1.03 * best);
  EXPECT_GT(Simulate(shallow, false, 4'000, decode, train).total, 1.15 * best) << "it takes depth";
  EXPECT_LT(run.depth, kBounds.most_depth) << "but not all that there is";
}

TEST(PrefetchTuner, GivesBackWhatIsNotUsedAnyMore) {
  const auto decode = [](int batch) { return batch < 1'000 ? 40.0 : 1.0; };
  const Simulated run = Simulate(kBounds, true, 12'000, decode, [](int) { return 10.0; });
  EXPECT_EQ(run.depth, kBounds.least_depth);
  EXPECT_LE(run.threads, 2);
}

TEST(PrefetchTuner, StaysWithinItsBounds) {
  PrefetchTuner tuner({.least_depth = 1, .most_depth = 1, .most_threads = 1});
  for (const Waited waited : {Waited::kForDepth, Waited::kForThreads, Waited::kForBytes}) {
    for (int i = 0; i < 10; ++i) tuner.Took(waited, 0);
  }
  EXPECT_EQ(tuner.depth(), 1);
  EXPECT_EQ(tuner.threads(), 1);
  PrefetchTuner other(kBounds);
  const int depth = other.depth();
  for (int i = 0; i < 10; ++i) other.Took(Waited::kForBytes, 0);
  EXPECT_EQ(other.depth(), depth) << "large pictures have the bytes that further batches would take";
}

}  // namespace
}  // namespace lockstep::dataset
