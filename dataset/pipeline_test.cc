#include "dataset/pipeline.h"

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/file.h"
#include "dataset/decode.h"
#include "dataset/picture_loader.h"
#include "dataset/pipeline_fixture.h"
#include "dataset/resize.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST_F(PipelineTest, EverySampleOnceWithItsLabelAndItsPixels) {
  Open({.batch = 8, .virtual_replicas = 4, .seed = 3, .shuffle = true});
  const auto pipeline = Start();
  const std::vector<Seen> batches = Drain(*pipeline, sampler_->StepsPerEpoch(), 1);
  EXPECT_EQ(batches.size(), 12u);
  std::set<int64_t> ids;
  Resizer resizer(options_.image);
  for (const Seen& batch : batches) {
    EXPECT_EQ(batch.ids, sampler_->Samples(0, batch.step, batch.virtual_replica));
    EXPECT_TRUE(batch.bad.empty());
    for (size_t i = 0; i < batch.ids.size(); ++i) {
      EXPECT_TRUE(ids.insert(batch.ids[i]).second);
      const SampleInfo sample = *index_->Sample(batch.ids[i]);
      EXPECT_EQ(batch.labels[i], sample.path.substr(0, 3) == "cat" ? 0 : 1);
      Pixels pixels;
      ASSERT_TRUE(Decode(*ReadFile(data_ / sample.path), {.least_height = 16, .least_width = 12}, pixels).ok());
      std::vector<float> expected(16 * 12 * 3);
      resizer.Run(pixels, expected.data());
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), batch.images.begin() + static_cast<ptrdiff_t>(i * expected.size())));
    }
  }
  EXPECT_EQ(ids.size(), 22u);
  EXPECT_EQ(pipeline->Next(0).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(pipeline->stats().images, 22u);
}

TEST_F(PipelineTest, ContentDoesNotDependOnThreadsBudgetOrWhoAsks) {
  Open({.batch = 8, .virtual_replicas = 4, .seed = 3, .shuffle = true});
  options_.one_pass = false;
  std::vector<Seen> first;
  for (const int threads : {1, 2, 5}) {
    for (const int64_t memory : {Least(), Least() + 20'000, int64_t{64} << 20}) {
      for (const int consumers : {1, 2, 4}) {
        options_.threads = threads;
        options_.memory_bytes = memory;
        const auto pipeline = Start();
        const std::vector<Seen> batches = Drain(*pipeline, 7, consumers);
        if (first.empty()) first = batches;
        EXPECT_EQ(batches.size(), 28u);
        EXPECT_TRUE(batches == first) << threads << " threads, " << memory << " bytes, " << consumers << " consumers";
      }
    }
  }
  EXPECT_NE(first[0].digest, first[1].digest);
}

// A rescale divides the virtual replicas otherwise, and starts in the middle of an epoch.
TEST_F(PipelineTest, AnyRunOfVirtualReplicasFromAnyStepSeesTheSame) {
  Open({.batch = 8, .virtual_replicas = 4, .seed = 3, .shuffle = true});
  options_.one_pass = false;
  std::vector<Seen> all;
  {
    const auto pipeline = Start();
    all = Drain(*pipeline, 8, 1);
  }
  options_.first_virtual_replica = 1;
  options_.virtual_replica_count = 2;
  options_.first_epoch = 1;
  options_.first_step = 1;
  const auto pipeline = Start();
  const std::vector<Seen> some = Drain(*pipeline, 3, 1);
  std::vector<Seen> expected;
  for (const Seen& seen : all) {
    const uint64_t step = seen.epoch * 3 + static_cast<uint64_t>(seen.step);
    if (step >= 4 && step < 7 && (seen.virtual_replica == 1 || seen.virtual_replica == 2)) expected.push_back(seen);
  }
  EXPECT_TRUE(some == expected);
  EXPECT_FALSE(pipeline->Next(0).ok());
  options_.first_step = 3;
  EXPECT_FALSE(Pipeline::Create(options_, *index_, data_.path(), *sampler_).ok());
}

TEST_F(PipelineTest, TooSmallABudgetIsRefusedWithTheOneThatWouldDo) {
  Open({.batch = 8, .virtual_replicas = 4});
  options_.memory_bytes = Least() - 1;
  const absl::Status status = Pipeline::Create(options_, *index_, data_.path(), *sampler_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("data.memory"), HasSubstr(absl::StrCat(Least(), " are needed"))));
  options_.memory_bytes = Least();
  EXPECT_EQ(Drain(*Start(), 3, 2).size(), 12u);
}

// Noise does not compress: the PNG and its pixels are more than a thread holds.
TEST_F(PipelineTest, LargePicturesWaitForTheirTurnWithinTheBudget) {
  for (int i = 0; i < 6; ++i) data_.Write(absl::StrCat("cat/large", i, ".png"), EncodePng(NoisyPixels(700, 800, 3, i)));
  data_.Write("dog/wide.png", EncodePng(SmoothPixels(700, 1600, 3)));  // a small file of many pixels
  Open({.batch = 29, .virtual_replicas = 1});
  options_.threads = 3;
  // Room for one of them at a time, in the half of the rest that is not for batches ahead.
  options_.memory_bytes = Least() + 2 * PictureLoader::OwnBytes(options_.image) + 2 * 4'200'000;
  std::vector<Seen> batches = Drain(*Start(), 1, 1);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_TRUE(batches[0].bad.empty());
  options_.memory_bytes = 64 << 20;
  EXPECT_TRUE(Drain(*Start(), 1, 1) == batches);

  options_.threads = 1;
  options_.memory_bytes = Least() + 1'000'000;
  const absl::Status status = Start()->Next(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("cat/large0.png takes "), HasSubstr("raise data.memory")));
}

TEST_F(PipelineTest, BuffersAreUsedAgain) {
  Open({.batch = 8, .virtual_replicas = 4});
  options_.one_pass = false;
  options_.memory_bytes = Least() + 2 * 3 * 2 * 16 * 12 * 3 * 4;
  const auto pipeline = Start();
  std::set<const float*> buffers;
  for (int step = 0; step < 50; ++step) {
    for (int v = 0; v < 4; ++v) {
      const absl::StatusOr<Batch> batch = pipeline->Next(v);
      ASSERT_TRUE(batch.ok());
      EXPECT_EQ(reinterpret_cast<uintptr_t>(batch->images()) % 64, 0u);
      buffers.insert(batch->images());
    }
  }
  EXPECT_LE(buffers.size(), 4u);
}

TEST_F(PipelineTest, ItStaysAheadWithinItsBudget) {
  Open({.batch = 4, .virtual_replicas = 2});
  options_.memory_bytes = 64 << 20;
  const auto pipeline = Start();
  // The batches of two steps get ready with nobody asking, and no more.
  while (pipeline->stats().images < 2 * 4) std::this_thread::yield();
  EXPECT_EQ(pipeline->stats().depth, 4);
  const int64_t batch_bytes = 2 * 16 * 12 * 3 * 4;
  EXPECT_GT(pipeline->stats().bytes, 4 * batch_bytes + 16 * 12 * 3);
  EXPECT_LE(pipeline->stats().bytes, 4 * batch_bytes + PictureLoader::OwnBytes(options_.image));
  EXPECT_EQ(Drain(*pipeline, 6, 1).size(), 12u);
  EXPECT_EQ(pipeline->stats().depth, 0);
}

TEST_F(PipelineTest, StopWakesWhoWaitsAndBatchesOutliveIt) {
  Open({.batch = 8, .virtual_replicas = 4});
  // A reader that never comes back until it is let go.
  class Held final : public FileReader {
   public:
    absl::Status Read(const std::string&, int64_t, std::string&) const override {
      release.WaitForNotification();
      return absl::UnknownError("no");
    }
    mutable absl::Notification release;
  } held;
  options_.reader = &held;
  options_.retry_pause = absl::Hours(1);
  {
    auto pipeline = Start();
    std::thread waiting([&] { EXPECT_EQ(pipeline->Next(0).status().code(), absl::StatusCode::kCancelled); });
    pipeline->Stop();
    waiting.join();
    EXPECT_EQ(pipeline->Next(1).status().code(), absl::StatusCode::kCancelled);
    held.release.Notify();  // its threads are about to pause for an hour, unless stopping ends that
  }
  options_.reader = nullptr;
  auto pipeline = Start();
  absl::StatusOr<Batch> batch = pipeline->Next(0);
  ASSERT_TRUE(batch.ok());
  const Seen before = See(*batch, 0);
  pipeline.reset();
  EXPECT_TRUE(See(*batch, 0) == before);
}

TEST_F(PipelineTest, ShutdownAtAnyMoment) {
  Open({.batch = 8, .virtual_replicas = 4});
  options_.one_pass = false;
  options_.threads = 3;
  for (int taken = 0; taken < 30; ++taken) {
    options_.memory_bytes = taken % 2 == 0 ? Least() : int64_t{64} << 20;
    const auto pipeline = Start();
    for (int i = 0; i < taken; ++i) ASSERT_TRUE(pipeline->Next(i % 4).ok());
  }
}

TEST_F(PipelineTest, NothingToDo) {
  Open({.batch = 64, .virtual_replicas = 4, .drop_last = true});
  EXPECT_EQ(Start()->Next(0).status().code(), absl::StatusCode::kOutOfRange);
  Open({.batch = 8, .virtual_replicas = 4});
  options_.virtual_replica_count = 0;
  EXPECT_FALSE(Start()->Next(0).ok());
}

}  // namespace
}  // namespace lockstep::dataset
