#include "dataset/pipeline.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <new>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/file.h"
#include "dataset/decode.h"
#include "dataset/picture_loader.h"
#include "dataset/resize.h"
#include "dataset/scratch_folder.h"
#include "dataset/test_pictures.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// What Next gave, kept after the batch is gone.
struct Seen {
  uint64_t epoch;
  int64_t step;
  int virtual_replica;
  std::vector<int64_t> ids, labels;
  std::vector<float> images;
  uint64_t digest;
  std::vector<std::string> bad;

  bool operator==(const Seen&) const = default;
  bool operator<(const Seen& o) const { return std::tie(epoch, step, virtual_replica) < std::tie(o.epoch, o.step, o.virtual_replica); }
};

Seen See(const Batch& batch, int virtual_replica) {
  Seen seen{batch.epoch(), batch.step(), virtual_replica, {}, {}, {}, batch.digest(), {}};
  seen.ids.assign(batch.sample_ids().begin(), batch.sample_ids().end());
  seen.labels.assign(batch.labels(), batch.labels() + batch.size());
  const size_t floats = batch.size() * static_cast<size_t>(batch.height() * batch.width() * batch.channels());
  seen.images.assign(batch.images(), batch.images() + floats);
  for (const BadPicture& bad : batch.bad()) seen.bad.push_back(absl::StrCat(bad.position, ": ", bad.reason));
  return seen;
}

// Counts down failures by path, then reads local files.
class FlakyReader final : public FileReader {
 public:
  void Fail(const std::string& path, int times) {
    absl::MutexLock lock(&mutex_);
    failures_[path] = times;
  }
  int reads() const { return reads_; }
  absl::Status Read(const std::string& path, int64_t bytes, std::string& contents) const override {
    ++reads_;
    {
      absl::MutexLock lock(&mutex_);
      const auto at = failures_.find(path);
      if (at != failures_.end() && at->second-- > 0) return absl::UnknownError(absl::StrCat("cannot read ", path, ": Input/output error"));
    }
    return local_->Read(path, bytes, contents);
  }

 private:
  const std::unique_ptr<FileReader> local_ = LocalFiles();
  mutable absl::Mutex mutex_;
  mutable std::map<std::string, int> failures_ ABSL_GUARDED_BY(mutex_);
  mutable std::atomic<int> reads_{0};
};

class PipelineTest : public testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 22; ++i) {
      const int size = 20 + i;
      const std::string name = absl::StrCat(i % 2 == 0 ? "cat/" : "dog/", i + 100);
      if (i % 5 == 0) {
        data_.Write(name + ".png", EncodePng(NoisyPixels(size, 2 * size, 3, i)));
      } else {
        data_.Write(name + ".jpg", EncodeJpeg(SmoothPixels(2 * size, size, i % 3 == 0 ? 1 : 3, i)));
      }
    }
  }

  void Open(SamplerOptions sampling) {
    const auto summary = BuildIndex(data_.path(), out_ / "index", {});
    ASSERT_TRUE(summary.ok()) << summary.status();
    index_ = std::move(*Index::Open(out_ / "index"));
    sampling.num_samples = index_->size();
    sampler_ = std::move(*Sampler::Create(sampling));
    options_.image = {.height = 16, .width = 12, .scale = 1.0 / 255};
    options_.virtual_replica_count = sampling.virtual_replicas;
    options_.one_pass = true;
    options_.retry_pause = absl::ZeroDuration();
  }
  std::unique_ptr<Pipeline> Start() {
    auto pipeline = Pipeline::Create(options_, *index_, data_.path(), *sampler_);
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    return std::move(*pipeline);
  }
  int64_t Least() { return MinimumBytes(options_, *sampler_); }

  // All batches of `steps` steps, asked for by several threads as a trainer's leaves are.
  std::vector<Seen> Drain(Pipeline& pipeline, int64_t steps, int threads) {
    const int first = options_.first_virtual_replica, count = options_.virtual_replica_count;
    std::vector<std::vector<Seen>> seen(static_cast<size_t>(threads));
    std::vector<std::thread> consumers;
    for (int t = 0; t < threads; ++t) {
      consumers.emplace_back([&, t] {
        for (int64_t step = 0; step < steps; ++step) {
          for (int v = first + count * t / threads; v < first + count * (t + 1) / threads; ++v) {
            const absl::StatusOr<Batch> batch = pipeline.Next(v);
            ASSERT_TRUE(batch.ok()) << batch.status();
            seen[static_cast<size_t>(t)].push_back(See(*batch, v));
            const PipelineStats stats = pipeline.stats();
            EXPECT_LE(stats.bytes, options_.memory_bytes);
            EXPECT_GT(stats.bytes, 0);
          }
        }
      });
    }
    for (std::thread& consumer : consumers) consumer.join();
    std::vector<Seen> all;
    for (const auto& some : seen) all.insert(all.end(), some.begin(), some.end());
    std::sort(all.begin(), all.end());
    return all;
  }

  const ScratchFolder data_, out_;
  std::unique_ptr<Index> index_;
  std::unique_ptr<Sampler> sampler_;
  PipelineOptions options_;
};

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
      const SampleInfo sample = index_->Sample(batch.ids[i]);
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

TEST_F(PipelineTest, BadPicturesAreListedWithReasonsAndZero) {
  data_.Write("cat/a_text.jpg", "this is text");
  data_.Write("cat/b_empty.png", "");
  data_.Write("cat/c_cut.jpg", EncodeJpeg(SmoothPixels(40, 40, 3)).substr(0, 500));
  data_.Write("dog/d_cmyk.jpg", EncodeJpeg(SmoothPixels(40, 40, 4), {.cmyk = true}));
  data_.Write("dog/e_deep.png", EncodePng(NoisyPixels(8, 8, 3), {.bit_depth = 16}));
  data_.Write("dog/f_png_named.jpg", EncodePng(NoisyPixels(8, 8, 3)));
  Open({.batch = 28, .virtual_replicas = 1});
  options_.threads = 3;
  const auto pipeline = Start();
  const std::vector<Seen> batches = Drain(*pipeline, 1, 1);
  ASSERT_EQ(batches.size(), 1u);
  std::vector<std::string> found;
  for (const std::string& bad : batches[0].bad) {
    const int64_t position = std::stoll(bad);
    const SampleInfo sample = index_->Sample(batches[0].ids[static_cast<size_t>(position)]);
    found.push_back(absl::StrCat(std::string(sample.path), bad.substr(bad.find(':'))));
    const auto begin = batches[0].images.begin() + position * 16 * 12 * 3;
    EXPECT_TRUE(std::all_of(begin, begin + 16 * 12 * 3, [](float value) { return value == 0; }));
  }
  EXPECT_THAT(found, testing::ElementsAre(HasSubstr("a_text.jpg: neither a JPEG nor a PNG"), "cat/b_empty.png: the file is empty",
                                          HasSubstr("c_cut.jpg: damaged JPEG"), HasSubstr("d_cmyk.jpg: a CMYK JPEG"),
                                          HasSubstr("e_deep.png: a PNG of 16 bits")));
}

TEST_F(PipelineTest, AFileThatChangedIsAnErrorThatNamesItAndIsNotTriedAgain) {
  Open({.batch = 22, .virtual_replicas = 2});
  const FlakyReader reader;
  options_.reader = &reader;
  const std::string path(index_->Sample(3).path);
  data_.Write(path, *ReadFile(data_ / path) + "x");
  const auto pipeline = Start();
  const absl::Status status = pipeline->Next(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(data_ / path), HasSubstr("has changed since the data set was listed")));
  EXPECT_TRUE(pipeline->Next(1).ok());
  EXPECT_EQ(reader.reads(), 22);
}

TEST_F(PipelineTest, AReadThatFailsTwiceIsTriedAgainAndLosesNothing) {
  Open({.batch = 22, .virtual_replicas = 1});
  const std::vector<Seen> expected = Drain(*Start(), 1, 1);
  FlakyReader reader;
  reader.Fail(data_ / index_->Sample(5).path, 2);
  options_.reader = &reader;
  EXPECT_TRUE(Drain(*Start(), 1, 1) == expected);
  EXPECT_EQ(reader.reads(), 24);
}

TEST_F(PipelineTest, AReadThatKeepsFailingIsNoBadSample) {
  Open({.batch = 22, .virtual_replicas = 1});
  FlakyReader reader;
  reader.Fail(data_ / index_->Sample(5).path, 3);
  options_.reader = &reader;
  const absl::Status status = Start()->Next(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(data_ / index_->Sample(5).path), HasSubstr("Input/output error"), HasSubstr("tried 3 times")));
}

TEST_F(PipelineTest, AFileThatIsGoneIsUnavailable) {
  Open({.batch = 22, .virtual_replicas = 1});
  std::filesystem::remove(data_ / index_->Sample(7).path);
  const absl::Status status = Start()->Next(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(data_ / index_->Sample(7).path));
}

TEST_F(PipelineTest, NoMemoryForAPictureIsAnErrorAndNotTheEnd) {
  Open({.batch = 22, .virtual_replicas = 2});
  class Greedy final : public FileReader {
   public:
    absl::Status Read(const std::string&, int64_t, std::string&) const override { throw std::bad_alloc(); }
  } greedy;
  options_.reader = &greedy;
  const auto pipeline = Start();
  for (int v = 0; v < 2; ++v) {
    const absl::Status status = pipeline->Next(v).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), HasSubstr(data_ / index_->Sample(11 * v).path));
  }
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
  options_.steps_ahead = 5;
  const auto pipeline = Start();
  // The batches of five steps get ready with nobody asking, and no more.
  while (pipeline->stats().images < 5 * 4) std::this_thread::yield();
  EXPECT_EQ(pipeline->stats().depth, 10);
  const int64_t batch_bytes = 2 * 16 * 12 * 3 * 4;
  EXPECT_GT(pipeline->stats().bytes, 10 * batch_bytes + 16 * 12 * 3);
  EXPECT_LE(pipeline->stats().bytes, 10 * batch_bytes + PictureLoader::OwnBytes(options_.image));
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
