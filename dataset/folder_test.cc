#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/test_folder.h"
#include "dataset/index.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class FolderTest : public testing::Test {
 protected:
  absl::StatusOr<IndexSummary> Build(const IndexOptions& options = {}) { return BuildIndex(data_.path(), path_, options); }
  std::string Refusal(const IndexOptions& options = {}) {
    const absl::Status status = Build(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_FALSE(std::filesystem::exists(path_)) << "an index was left of a folder that cannot be used";
    return std::string(status.message());
  }
  // "path label bytes" of each sample.
  std::vector<std::string> Samples() {
    const auto index = Index::Open(path_);
    EXPECT_TRUE(index.ok()) << index.status();
    std::vector<std::string> samples;
    for (int64_t i = 0; i < (*index)->size(); ++i) {
      const SampleInfo sample = *(*index)->Sample(i);
      samples.push_back(absl::StrCat(std::string(sample.path), " ", sample.label, " ", sample.bytes));
    }
    return samples;
  }

  const TestFolder data_, out_;
  const std::string path_ = out_ / "index";
};

TEST_F(FolderTest, ClassFoldersGiveLabelsInOrderOfTheirNames) {
  data_.Write("dog/1.JPG", "xyz");
  data_.Write("cat/deep/er/2.jpeg", "x");
  data_.Write("cat/1.png", "");
  data_.Write("cat/.hidden.png", "x");
  data_.Write(".cache/1.png", "x");
  const auto summary = Build();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->samples, 3);
  EXPECT_EQ(summary->classes, 2);
  EXPECT_THAT(summary->notes, ElementsAre());
  EXPECT_THAT(Samples(), ElementsAre("cat/1.png 0 0", "cat/deep/er/2.jpeg 0 1", "dog/1.JPG 1 3"));
}

TEST_F(FolderTest, WhatIsNotUsedIsNoted) {
  data_.Write("cat/1.jpg", "x");
  data_.Write("cat/notes.txt", "x");
  data_.Write("cat/README", "x");
  data_.Write("loose.png", "x");
  std::filesystem::create_symlink("nowhere", data_ / "cat/2.jpg");
  const auto summary = Build();
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->ignored_files, 2);
  EXPECT_THAT(summary->notes, ElementsAre("1 pictures beside the class folders are not used", "2 files ignored: not .jpg, .jpeg or .png",
                                          "1 symbolic links ignored: they lead nowhere"));
}

TEST_F(FolderTest, ValidationHasTrainingsLabels) {
  data_.Write("dog/1.jpg", "x");
  const auto summary = Build({.expected_classes = {"cat", "dog"}});
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_THAT(Samples(), ElementsAre("dog/1.jpg 1 1"));
  EXPECT_THAT(summary->notes, ElementsAre("no pictures of cat"));
}

TEST_F(FolderTest, PredictionNeedsNoClasses) {
  data_.Write("b.jpg", "x");
  data_.Write("text", "x");
  data_.Write("cat/a.jpg", "x");
  const auto summary = Build({.require_classes = false});
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_THAT(Samples(), ElementsAre("b.jpg -1 1", "cat/a.jpg 0 1"));
  EXPECT_EQ(summary->ignored_files, 1);
}

TEST_F(FolderTest, EveryProblemIsToldAtOnce) {
  data_.Write("cat/1.jpg", "x");
  data_.Write("wolf/1.jpg", "x");
  data_.Write("dog/1.txt", "x");
  EXPECT_THAT(Refusal({.expected_classes = {"cat", "dog"}}), AllOf(HasSubstr("/wolf is not among the training classes (cat, dog)"),
                                                                   HasSubstr("/dog has no pictures"), Not(HasSubstr("/cat"))));
}

TEST_F(FolderTest, FoldersThatCannotBeADataSet) {
  EXPECT_THAT(Refusal(), AllOf(HasSubstr(data_.path()), HasSubstr("has no class folders")));
  EXPECT_THAT(Refusal({.require_classes = false}), HasSubstr("has no pictures"));
  data_.Write("1.jpg", "x");
  EXPECT_THAT(Refusal(), HasSubstr("its pictures must lie in one folder for each class"));
  std::filesystem::create_directory(data_ / "empty");
  EXPECT_THAT(Refusal(), HasSubstr("/empty has no pictures"));
  const absl::Status none = BuildIndex(data_ / "none", path_, {}).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(none.message()), AllOf(HasSubstr("there is no folder"), HasSubstr(data_ / "none")));
  EXPECT_THAT(std::string(BuildIndex(data_ / "1.jpg", path_, {}).status().message()), HasSubstr("is not a folder"));
}

TEST_F(FolderTest, ManyProblemsAreCounted) {
  for (int i = 0; i < 50; ++i) std::filesystem::create_directory(data_ / absl::StrCat("class", i));
  EXPECT_THAT(Refusal(), HasSubstr("… and 30 more problems"));
}

TEST_F(FolderTest, NamesThatAreNotUtf8AreRefused) {
  data_.Write("caf\xC3\xA9/\xE2\x82\xAC.jpg", "x");
  ASSERT_TRUE(Build().ok());
  std::filesystem::remove(path_);
  data_.Write("caf\xC3\xA9/\xE9.jpg", "x");
  EXPECT_THAT(Refusal(), HasSubstr("\\xe9.jpg is not UTF-8"));
}

TEST_F(FolderTest, ALoopOfLinksIsFoundOut) {
  data_.Write("cat/1.jpg", "x");
  std::filesystem::create_directory_symlink(data_ / "cat", data_ / "cat/again");
  const absl::Status status = Build().status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("again"), HasSubstr("symbolic link")));
}

TEST_F(FolderTest, AFolderThatMayNotBeReadIsSaid) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  data_.Write("cat/1.jpg", "x");
  data_.Write("dog/1.jpg", "x");
  std::filesystem::permissions(data_ / "dog", std::filesystem::perms::none);
  const absl::Status status = Build().status();
  std::filesystem::permissions(data_ / "dog", std::filesystem::perms::owner_all);
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/dog"));
}

}  // namespace
}  // namespace lockstep::dataset
