// What the pipeline makes of pictures that are bad, and of files that cannot be read.

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/file.h"
#include "dataset/file_reader.h"
#include "dataset/pipeline_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using PipelineErrors = PipelineTest;

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

TEST_F(PipelineErrors, BadPicturesAreListedWithReasonsAndZero) {
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
    const SampleInfo sample = *index_->Sample(batches[0].ids[static_cast<size_t>(position)]);
    found.push_back(absl::StrCat(std::string(sample.path), bad.substr(bad.find(':'))));
    const auto begin = batches[0].images.begin() + position * 16 * 12 * 3;
    EXPECT_TRUE(std::all_of(begin, begin + 16 * 12 * 3, [](float value) { return value == 0; }));
  }
  EXPECT_THAT(found, testing::ElementsAre(HasSubstr("a_text.jpg: neither a JPEG nor a PNG"), "cat/b_empty.png: the file is empty",
                                          HasSubstr("c_cut.jpg: damaged JPEG"), HasSubstr("d_cmyk.jpg: a CMYK JPEG"),
                                          HasSubstr("e_deep.png: a PNG of 16 bits")));
}

TEST_F(PipelineErrors, AFileThatChangedIsAnErrorThatNamesItAndIsNotTriedAgain) {
  Open({.batch = 22, .virtual_replicas = 2});
  const FlakyReader reader;
  options_.reader = &reader;
  const std::string path(index_->Sample(3)->path);
  data_.Write(path, *ReadFile(data_ / path) + "x");
  const auto pipeline = Start();
  const absl::Status status = pipeline->Next(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(data_ / path), HasSubstr("has changed since the data set was listed")));
  EXPECT_TRUE(pipeline->Next(1).ok());
  EXPECT_EQ(reader.reads(), 22);
}

TEST_F(PipelineErrors, AReadThatFailsTwiceIsTriedAgainAndLosesNothing) {
  Open({.batch = 22, .virtual_replicas = 1});
  const std::vector<Seen> expected = Drain(*Start(), 1, 1);
  FlakyReader reader;
  reader.Fail(data_ / index_->Sample(5)->path, 2);
  options_.reader = &reader;
  EXPECT_TRUE(Drain(*Start(), 1, 1) == expected);
  EXPECT_EQ(reader.reads(), 24);
}

TEST_F(PipelineErrors, AReadThatKeepsFailingIsNoBadSample) {
  Open({.batch = 22, .virtual_replicas = 1});
  FlakyReader reader;
  reader.Fail(data_ / index_->Sample(5)->path, 3);
  options_.reader = &reader;
  const absl::Status status = Start()->Next(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(data_ / index_->Sample(5)->path), HasSubstr("Input/output error"), HasSubstr("tried 3 times")));
}

TEST_F(PipelineErrors, AFileThatIsGoneIsUnavailable) {
  Open({.batch = 22, .virtual_replicas = 1});
  std::filesystem::remove(data_ / index_->Sample(7)->path);
  const absl::Status status = Start()->Next(0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(data_ / index_->Sample(7)->path));
}

TEST_F(PipelineErrors, NoMemoryForAPictureIsAnErrorAndNotTheEnd) {
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
    EXPECT_THAT(std::string(status.message()), HasSubstr(data_ / index_->Sample(11 * v)->path));
  }
}

}  // namespace
}  // namespace lockstep::dataset
