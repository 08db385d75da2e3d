// How the pipeline's depth and threads follow training, and make room for large pictures.
#include <map>
#include <memory>
#include <thread>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "dataset/picture_loader.h"
#include "dataset/pipeline_fixture.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

// Lets everything through but some files, each until it is let go.
class HoldsSome final : public FileReader {
 public:
  absl::Status Read(const std::string& path, int64_t bytes, std::string& file) const override {
    for (const auto& [end, release] : held) {
      if (absl::EndsWith(path, end)) release->WaitForNotification();
    }
    return files_->Read(path, bytes, file);
  }
  void Hold(const std::string& path) { held[path] = std::make_unique<absl::Notification>(); }
  void Release(const std::string& path) { held.at(path)->Notify(); }
  std::map<std::string, std::unique_ptr<absl::Notification>> held;

 private:
  const std::unique_ptr<FileReader> files_ = LocalFiles();
};

class PipelineTuningTest : public PipelineTest {
 protected:
  static void WaitForImages(const Pipeline& pipeline, uint64_t images) {
    while (pipeline.stats().images < images) std::this_thread::yield();
  }
};

TEST_F(PipelineTuningTest, TakesThreadsOrDepthWhicheverTrainingWaitedFor) {
  Open({.batch = 2, .virtual_replicas = 1});
  options_.one_pass = false;
  options_.memory_bytes = 64 << 20;
  options_.threads = 2;
  HoldsSome reader;
  const auto first_of = [this](int64_t step) { return index_->Sample(sampler_->Samples(0, step, 0)[0])->path; };
  reader.Hold(first_of(0));
  reader.Hold(first_of(3));
  options_.reader = &reader;
  const auto pipeline = Start();
  // Lets the file go once training waits for it.
  const auto next_when_held = [&](int64_t step) {
    std::thread training([&] { EXPECT_TRUE(pipeline->Next(0).ok()); });
    while (pipeline->stats().waiting == 0) std::this_thread::yield();
    reader.Release(first_of(step));
    training.join();
  };
  EXPECT_EQ(pipeline->stats().most_depth, 2) << "small at first";
  EXPECT_EQ(pipeline->stats().threads, 1);
  next_when_held(0);
  EXPECT_EQ(pipeline->stats().threads, 2) << "there was more to do, and one to do it";
  EXPECT_EQ(pipeline->stats().most_depth, 2);
  for (int step = 1; step < 3; ++step) {
    WaitForImages(*pipeline, 6);
    ASSERT_TRUE(pipeline->Next(0).ok());
  }
  WaitForImages(*pipeline, 9);  // step 4, and what is not held of step 3
  next_when_held(3);
  EXPECT_EQ(pipeline->stats().most_depth, 3) << "one thread had nothing to do";
  EXPECT_EQ(pipeline->stats().threads, 2);
}

TEST(BytePool, NothingIsHeldForLongWhileSomebodyWaits) {
  BytePool pool(100, 60);
  EXPECT_TRUE(pool.TryAcquire(40));
  EXPECT_TRUE(pool.Acquire(60)) << "what a large picture can count on";
  EXPECT_FALSE(pool.TryAcquire(1));
  std::thread large([&pool] { EXPECT_TRUE(pool.Acquire(50)); });
  while (!pool.is_waited_for()) std::this_thread::yield();
  pool.Release(40);
  EXPECT_FALSE(pool.CanAcquire(10)) << "room for ten, but somebody waits for fifty";
  EXPECT_FALSE(pool.TryAcquire(10));
  pool.Release(60);
  large.join();
  EXPECT_TRUE(pool.TryAcquire(50));
  EXPECT_EQ(pool.used(), 100);
}

TEST_F(PipelineTuningTest, TheUnaskedForIsBoundedAtFirstAndGrowsNoFurtherThanTheBudget) {
  Open({.batch = 4, .virtual_replicas = 2});
  options_.one_pass = false;
  options_.threads = 4;
  const int64_t batch_bytes = 2 * 16 * 12 * 3 * 4;
  options_.memory_bytes = Least() + 3 * PictureLoader::OwnBytes(options_.image) + 7 * batch_bytes;
  const auto pipeline = Start();
  const auto batches = Drain(*pipeline, 200, 2);
  EXPECT_EQ(batches.size(), 400u);
  EXPECT_LE(pipeline->stats().most_depth, 1 + 7 / 2);
}

// Noise does not compress: each is larger than a thread's own buffers.
TEST_F(PipelineTuningTest, HugePicturesLowerTheDepthInsteadOfGrowing) {
  for (int i = 0; i < 12; ++i) data_.Write(absl::StrCat("cat/huge", i, ".png"), EncodePng(NoisyPixels(700, 800, 3, i)));
  Open({.batch = 2, .virtual_replicas = 1, .seed = 3, .shuffle = true});
  options_.one_pass = false;
  options_.threads = 3;
  // Batches of a size that counts beside a huge picture: either several of them are ahead, or two such pictures are decoded at once.
  options_.image = {.height = 300, .width = 300, .scale = 1.0 / 255};
  const int64_t slot = 2 * 300 * 300 * 3 * 4;
  options_.memory_bytes = Least() + 2 * PictureLoader::OwnBytes(options_.image) + 6 * slot;
  std::vector<Seen> seen;
  {
    const auto pipeline = Start();
    seen = Drain(*pipeline, 60, 1);  // asserts at every batch that the budget holds
    EXPECT_EQ(seen.size(), 60u);
  }
  options_.memory_bytes = int64_t{1} << 30;
  const auto pipeline = Start();
  EXPECT_TRUE(Drain(*pipeline, 60, 1) == seen) << "the bits are the same";
}

TEST_F(PipelineTuningTest, NoBudgetAndNoMixOfPicturesHangs) {
  for (int i = 0; i < 5; ++i) data_.Write(absl::StrCat("dog/huge", i, ".png"), EncodePng(NoisyPixels(600, 700, 3, i)));
  Open({.batch = 6, .virtual_replicas = 3, .seed = 1, .shuffle = true});
  options_.one_pass = false;
  std::vector<Seen> first;
  for (const int threads : {1, 2, 5}) {
    for (const int64_t room : {5, 6, 10, 40}) {
      options_.threads = threads;
      options_.memory_bytes = Least() + (threads - 1) * PictureLoader::OwnBytes(options_.image) + room * 1'000'000;
      const auto pipeline = Start();
      const std::vector<Seen> seen = Drain(*pipeline, 12, 3);
      if (first.empty()) first = seen;
      EXPECT_TRUE(seen == first) << threads << " threads, " << room << " MB";
    }
  }
}

}  // namespace
}  // namespace lockstep::dataset
