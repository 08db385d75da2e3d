#include "dataset/index.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/test_folder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

using ::testing::HasSubstr;

struct File {
  std::string path;
  int64_t label;
  int64_t bytes;
};

FileSource From(const std::vector<File>& files) {
  return [&files](const FileSink& sink) -> absl::Status {
    for (const File& file : files) {
      if (const absl::Status status = sink({file.path, file.label, file.bytes}); !status.ok()) return status;
    }
    return absl::OkStatus();
  };
}

class IndexTest : public testing::Test {
 protected:
  std::string Written(const std::vector<File>& files, const std::vector<std::string>& classes, int64_t memory = 64 << 20) {
    const absl::StatusOr<int64_t> count = WriteIndex(From(files), classes, path_, memory);
    EXPECT_TRUE(count.ok()) << count.status();
    EXPECT_EQ(*count, static_cast<int64_t>(files.size()));
    return *ReadFile(path_);
  }
  absl::Status OpenAfterWriting(const std::string& contents) {
    folder_.Write("index", contents);
    return Index::Open(path_).status();
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "index";
};

TEST_F(IndexTest, HoldsSortedPathsLabelsSizesAndClassNames) {
  Written({{"dog/b.jpg", 1, 20}, {"cat/z.png", 0, 5'000'000'000}, {"cat/a.jpg", 0, 0}}, {"cat", "dog"});
  const auto index = Index::Open(path_);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ((*index)->class_names(), (std::vector<std::string>{"cat", "dog"}));
  ASSERT_EQ((*index)->size(), 3);
  EXPECT_EQ((*index)->Sample(0)->path, "cat/a.jpg");
  EXPECT_EQ((*index)->Sample(0)->bytes, 0);
  EXPECT_EQ((*index)->Sample(1)->path, "cat/z.png");
  EXPECT_EQ((*index)->Sample(1)->label, 0);
  EXPECT_EQ((*index)->Sample(1)->bytes, 5'000'000'000);
  EXPECT_EQ((*index)->Sample(2)->path, "dog/b.jpg");
  EXPECT_EQ((*index)->Sample(2)->label, 1);
}

// The bytes of docs/data.md.
TEST_F(IndexTest, TheExampleInTheDocuments) {
  const std::string bytes = Written({{"dog/b.jpg", 1, 7}, {"cat/a.jpg", 0, 258}}, {"cat", "dog"});
  std::string hex;
  for (const char c : bytes) absl::StrAppend(&hex, absl::Hex(static_cast<unsigned char>(c), absl::kZeroPad2));
  EXPECT_EQ(hex,
            "4c53494e44455831"
            "02000000000000000200000000000000"
            "560000000000000086000000000000009800000000000000"
            "a5f64dbd26394c62c86f99901d01e155d3456b5bfd3cde10"
            "0300000063617403000000646f67"
            "000000000000000009000000000000000201000000000000"
            "090000000000000009000000010000000700000000000000"
            "6361742f612e6a7067646f672f622e6a7067");
}

TEST_F(IndexTest, TheHashChangesWithAnyNameLabelOrSizeAndWithNothingElse) {
  std::vector<File> files = {{"a/1.jpg", 0, 10}, {"b/2.jpg", 1, 20}};
  std::set<uint64_t> hashes;
  const auto hash = [&](const std::vector<std::string>& classes) {
    Written(files, classes);
    return (*Index::Open(path_))->hash();
  };
  const uint64_t first = hash({"a", "b"});
  std::swap(files[0], files[1]);
  EXPECT_EQ(hash({"a", "b"}), first);
  hashes.insert(first);
  hashes.insert(hash({"a", "c"}));
  files[0].bytes = 21;
  hashes.insert(hash({"a", "b"}));
  files[0].label = 0;
  hashes.insert(hash({"a", "b"}));
  files[0].path = "b/3.jpg";
  hashes.insert(hash({"a", "b"}));
  EXPECT_EQ(hashes.size(), 5u);
}

TEST_F(IndexTest, ManyRunsSortLikeOne) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  std::vector<File> files;
  for (int64_t i = 0; i < 100'000; ++i) {
    std::string path = absl::StrCat("c", random() % 10, "/", random(), std::string(random() % 60, 'x'), ".jpg");
    files.push_back({std::move(path), static_cast<int64_t>(random() % 10), i});
  }
  const std::vector<std::string> classes = {"c"};
  const std::string one = Written(files, classes, int64_t{64} << 20);
  EXPECT_EQ(Written(files, classes, kLeastSortBytes), one);
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.path < b.path; });
  const auto index = Index::Open(path_);
  ASSERT_TRUE(index.ok()) << index.status();
  for (size_t i = 0; i < files.size(); ++i) {
    const SampleInfo sample = *(*index)->Sample(static_cast<int64_t>(i));
    ASSERT_EQ(sample.path, files[i].path);
    ASSERT_EQ(sample.label, files[i].label);
    ASSERT_EQ(sample.bytes, files[i].bytes);
  }
}

TEST_F(IndexTest, AnyDamagedByteIsSeenAndTheFileNamed) {
  const std::string whole = Written({{"a/1.jpg", 0, 10}, {"b/2.jpg", 1, 20}}, {"a", "b"});
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    const absl::Status status = OpenAfterWriting(damaged);
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << "byte " << i << ": " << status;
    ASSERT_THAT(std::string(status.message()), HasSubstr(path_));
  }
  EXPECT_TRUE(OpenAfterWriting(whole).ok());
}

TEST_F(IndexTest, AnyCutIsSeen) {
  const std::string whole = Written({{"a/1.jpg", 0, 10}}, {"a"});
  for (size_t length = 0; length < whole.size(); ++length) {
    ASSERT_EQ(OpenAfterWriting(whole.substr(0, length)).code(), absl::StatusCode::kDataLoss) << "length " << length;
  }
  EXPECT_EQ(OpenAfterWriting(whole + "x").code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Index::Open(folder_ / "none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(IndexTest, AnErrorOfTheSourceLeavesTheFileAsItWas) {
  const std::string before = Written({{"a/1.jpg", 0, 10}}, {"a"});
  const FileSource failing = [](const FileSink& sink) {
    EXPECT_TRUE(sink({"a/2.jpg", 0, 1}).ok());
    return absl::PermissionDeniedError("cannot read it");
  };
  EXPECT_EQ(WriteIndex(failing, {"a"}, path_, 64 << 20).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(*ReadFile(path_), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1) << "something was left behind";
}

TEST_F(IndexTest, WhatCannotBeWrittenIsSaid) {
  const std::vector<File> files = {{"a/1.jpg", 0, 10}};
  const absl::Status status = WriteIndex(From(files), {"a"}, folder_ / "none/index", 64 << 20).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("none/index"));
  EXPECT_EQ(WriteIndex(From(files), {"a"}, path_, 100).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(IndexTest, AFullDiskIsNamed) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  std::filesystem::create_symlink("/dev/full", folder_ / absl::StrCat("index.tmp.", getpid()));
  const std::vector<File> files = {{"a/1.jpg", 0, 10}};
  const absl::Status status = WriteIndex(From(files), {"a"}, path_, 64 << 20).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_FALSE(std::filesystem::exists(path_));
}

}  // namespace
}  // namespace lockstep::dataset
