#include "dataset/pipeline_forecast.h"

#include <random>
#include <thread>

#include "dataset/pipeline_core.h"
#include "dataset/pipeline_fixture.h"

namespace lockstep::dataset {
namespace {

constexpr PictureCosts kPicture{.seconds = 0.001, .thread_bytes = 50'000};

class PipelineForecast : public PipelineTest {
 protected:
  void SetUp() override {
    PipelineTest::SetUp();
    Open({.batch = 8, .virtual_replicas = 4});
    options_.one_pass = false;
    options_.memory_bytes = 64 << 20;
    options_.threads = 4;
  }
  int64_t Forecast(double seconds_per_sample, int threads = 1) {
    return ForecastBytes(options_, *sampler_, kPicture, {threads, seconds_per_sample});
  }
  int64_t Slots(int64_t bytes, int threads) { return (bytes - threads * kPicture.thread_bytes) / ShareOut(options_, *sampler_).slot_bytes; }
};

TEST_F(PipelineForecast, WhereTrainingIsSlowItIsLittleMoreThanTwoSteps) {
  // All but the first batch are there; for that one a second thread came.
  EXPECT_EQ(Slots(Forecast(1), 2), 8);
  options_.threads = 1;
  EXPECT_EQ(Slots(Forecast(1), 1), 9) << "or a batch more";
}

TEST_F(PipelineForecast, WhereDecodingIsSlowNoBufferWaitsFull) {
  const int64_t bytes = Forecast(1e-6);
  EXPECT_LE(Slots(bytes, 4), 4);
  EXPECT_GE(Slots(bytes, 4), 2);
}

TEST_F(PipelineForecast, NeverAboveTheBudget) {
  std::mt19937 random(7);
  for (int i = 0; i < 200; ++i) {
    options_.memory_bytes = Least() + static_cast<int64_t>(random() % (4 << 20));
    options_.threads = 1 + static_cast<int>(random() % 8);
    const PictureCosts picture{1e-3, static_cast<int64_t>(random() % (4 << 20)), static_cast<int64_t>(random() % (8 << 20))};
    const Consumption consumption{1 + static_cast<int>(random() % 4), 1e-5 * static_cast<double>(random() % 1'000)};
    const int64_t bytes = ForecastBytes(options_, *sampler_, picture, consumption);
    EXPECT_LE(bytes, options_.memory_bytes);
    EXPECT_GE(bytes, ShareOut(options_, *sampler_).slot_bytes);
  }
}

TEST_F(PipelineForecast, OfOnePassNoMoreThanItsBatches) {
  options_.one_pass = true;
  Open({.batch = 24, .virtual_replicas = 2});
  ASSERT_EQ(sampler_->StepsPerEpoch(), 1);
  EXPECT_EQ(Slots(Forecast(1), 2), 2);
}

TEST_F(PipelineForecast, IsWhatAPipelineTakesThatIsAlwaysAhead) {
  options_.threads = 1;
  const PictureCosts picture = MeasurePictures(options_.image, *index_, data_.path());
  EXPECT_GT(picture.seconds, 0);
  EXPECT_GT(picture.thread_bytes, 0);
  EXPECT_EQ(picture.large_bytes, 0);
  const int64_t forecast = ForecastBytes(options_, *sampler_, picture, {1, 100.0});
  const auto pipeline = Start();
  int64_t most = 0;
  for (int batch = 0; batch < 40; ++batch) {
    const auto taken = pipeline->Next(batch % 4);
    ASSERT_TRUE(taken.ok()) << taken.status();
    // Training goes on once as many are ready as the tuner lets be.
    for (PipelineStats stats = pipeline->stats(); stats.depth + 1 < stats.most_depth; stats = pipeline->stats()) {
      std::this_thread::yield();
    }
    most = std::max(most, pipeline->stats().bytes);
  }
  // One picture of eight may not be the largest of all; and the first batch may be there before it is asked for.
  EXPECT_LE(most, forecast * 105 / 100);
  EXPECT_GE(most, forecast * 85 / 100);
}

TEST_F(PipelineForecast, LargePicturesAreSeen) {
  options_.image.full_decode = true;
  data_.Write("cat/large.png", EncodePng(NoisyPixels(1500, 1500, 3, 1)));
  Open({.batch = 8, .virtual_replicas = 4});
  // Up to eight pictures of the index: all of a small one.
  PictureCosts large;
  const TestFolder one;
  one.Write("cat/large.png", EncodePng(NoisyPixels(1500, 1500, 3, 1)));
  ASSERT_TRUE(BuildIndex(one.path(), out_ / "one", {}).ok());
  const auto index = std::move(*Index::Open(out_ / "one"));
  large = MeasurePictures(options_.image, *index, one.path());
  EXPECT_GE(large.large_bytes, 1500 * 1500 * 3);
  const int64_t with = ForecastBytes(options_, *sampler_, large, {1, 1.0});
  EXPECT_GE(with, ForecastBytes(options_, *sampler_, kPicture, {1, 1.0}) + 1500 * 1500 * 3);
}

}  // namespace
}  // namespace lockstep::dataset
