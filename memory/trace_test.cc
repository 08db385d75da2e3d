#include "memory/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "memory/block_pool.h"

namespace lockstep::memory {
namespace {

// A step that keeps a block of `keep` bytes a sample for each of its layers, and needs one of `work` besides.
Trace Step(BlockPool& pool, int64_t samples, int layers = 4, int64_t keep = 40'000, int64_t work = 100'000) {
  Recording recording;
  const ScopedCategory category(Category::kActivations);
  std::vector<void*> kept;
  for (int i = 0; i < layers; ++i) {
    recording.At("forward " + std::to_string(i));
    void* workspace = pool.Allocate(static_cast<size_t>(work));
    kept.push_back(pool.Allocate(static_cast<size_t>(keep * samples)));
    pool.Free(workspace);
  }
  for (; !kept.empty(); kept.pop_back()) {
    recording.At("backward " + std::to_string(kept.size() - 1));
    pool.Free(kept.back());
  }
  return recording.Take();
}

TEST(Trace, ItsPeakIsThePoolsOwn) {
  BlockPool pool({});
  void* before = pool.Allocate(5'000'000);
  pool.ResetPeak();
  const Trace trace = Step(pool, 7);
  const Peak peak = PeakOf(trace);
  EXPECT_EQ(peak.bytes, pool.GetUsage().peak_bytes - BlockPool::BlockSize(5'000'000));
  EXPECT_EQ(peak.by_category[Category::kActivations], peak.bytes);
  EXPECT_EQ(peak.place, "forward 3");
  EXPECT_EQ(LiveBytes(trace).back(), 0);
  pool.Free(before);
}

TEST(Trace, RandomStepsReplayToThePoolsPeak) {
  const unsigned seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int round = 0; round < 50; ++round) {
    BlockPool pool({});
    Recording recording;
    std::vector<void*> live;
    for (int i = 0; i < 300; ++i) {
      if (!live.empty() && random() % 2 == 0) {
        std::swap(live[random() % live.size()], live.back());
        pool.Free(live.back());
        live.pop_back();
      } else {
        live.push_back(pool.Allocate(random() % (random() % 3 == 0 ? 300'000 : 3'000) + 1));
      }
    }
    ASSERT_EQ(PeakOf(recording.Take()).bytes, pool.GetUsage().peak_bytes) << "seed " << seed << ", round " << round;
    for (void* block : live) pool.Free(block);
  }
}

TEST(Trace, TwoMicroBatchesTellAllOthers) {
  BlockPool pool({});
  const auto fit = AffineTrace::Fit(Step(pool, 2), 2, Step(pool, 4), 4);
  ASSERT_TRUE(fit.ok()) << fit.status();
  for (const int64_t samples : {1, 3, 5, 64}) {
    pool.ResetPeak();
    const Trace trace = Step(pool, samples);
    EXPECT_TRUE(fit->Check(trace, samples).ok());
    EXPECT_EQ(PeakOf(fit->At(samples)).bytes, pool.GetUsage().peak_bytes);
  }
}

TEST(Trace, AnotherSequenceOrSizeIsNoticed) {
  BlockPool pool({});
  EXPECT_EQ(AffineTrace::Fit(Step(pool, 2), 2, Step(pool, 4, 5), 4).status().code(), absl::StatusCode::kFailedPrecondition);
  const auto fit = AffineTrace::Fit(Step(pool, 2), 2, Step(pool, 4), 4);
  EXPECT_THAT(fit->Check(Step(pool, 8, 4, 40'001), 8).message(), testing::HasSubstr("in forward 0 8 samples take"));
}

TEST(Trace, OtherThreadsAndWhatWasThereBeforeAreNotInIt) {
  BlockPool pool({});
  void* before = pool.Allocate(100);
  Recording recording;
  std::thread([&] { pool.Free(pool.Allocate(1000)); }).join();
  pool.Free(before);
  EXPECT_TRUE(recording.Take().events.empty());
}

}  // namespace
}  // namespace lockstep::memory
