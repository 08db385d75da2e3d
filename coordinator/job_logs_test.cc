#include "coordinator/job_logs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "coordinator/state_folder.h"
#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

constexpr char kJob[] = "j0000001";

v1::LogLines Lines(const std::string& text, uint32_t rank = 0) {
  v1::LogLines lines;
  lines.set_job_id(kJob);
  lines.set_generation(2);
  lines.set_rank(rank);
  lines.set_text(text);
  return lines;
}

class JobLogsTest : public testing::Test {
 protected:
  JobLogsTest() : folder_(*StateFolder::Open(scratch_ / "state")) {
    std::filesystem::create_directories(std::filesystem::path(Path()).parent_path());
  }
  std::string Path() const { return folder_->JobPath(kJob, kLogFile); }

  const TestFolder scratch_;
  const std::unique_ptr<StateFolder> folder_;
};

TEST_F(JobLogsTest, EachLineSaysWhoWroteIt) {
  JobLogs logs(*folder_);
  EXPECT_EQ(*logs.Read(kJob, 0, absl::ZeroDuration()), "");
  ASSERT_TRUE(logs.Append(Lines("one\ntwo\n")).ok());
  ASSERT_TRUE(logs.Append(Lines("three", 1)).ok());
  EXPECT_EQ(*logs.Read(kJob, 0, absl::ZeroDuration()), "2.0 one\n2.0 two\n2.1 three\n");
  EXPECT_EQ(*logs.Read(kJob, 8, absl::ZeroDuration()), "2.0 two\n2.1 three\n");
  EXPECT_EQ(*JobLogs(*folder_).Read(kJob, 16, absl::ZeroDuration()), "2.1 three\n") << "after a restart";
}

TEST_F(JobLogsTest, AFullOneSaysSoOnceAlsoAfterARestart) {
  constexpr int64_t kMost = 1'000;
  for (int restart = 0; restart < 3; ++restart) {
    JobLogs logs(*folder_, kMost);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(logs.Append(Lines(absl::StrCat("line ", i))).ok());
  }
  const std::string text = *JobLogs(*folder_).Read(kJob, 0, absl::ZeroDuration());
  EXPECT_LE(text.size(), kMost + 100u);
  EXPECT_THAT(text, EndsWith("the log of this job is full: further lines are dropped\n"));
  EXPECT_EQ(text.find("is full"), text.rfind("is full"));
}

TEST_F(JobLogsTest, ALineCutByACrashIsDropped) {
  std::ofstream(Path()) << "2.0 whole\n2.0 cut";
  JobLogs logs(*folder_);
  EXPECT_EQ(*logs.Read(kJob, 0, absl::ZeroDuration()), "2.0 whole\n");
  ASSERT_TRUE(logs.Append(Lines("next")).ok());
  EXPECT_EQ(*logs.Read(kJob, 0, absl::ZeroDuration()), "2.0 whole\n2.0 next\n");
}

TEST_F(JobLogsTest, AReaderWakesWithTheLine) {
  JobLogs logs(*folder_);
  std::string read;
  std::thread reader([&] { read = *logs.Read(kJob, 0, absl::Hours(1)); });
  ASSERT_TRUE(logs.Append(Lines("now")).ok());
  reader.join();
  EXPECT_EQ(read, "2.0 now\n");
}

TEST_F(JobLogsTest, LongLinesAreCutAndLongLogsComeInPieces) {
  JobLogs logs(*folder_);
  ASSERT_TRUE(logs.Append(Lines(std::string(100'000, 'x'))).ok());
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(logs.Append(Lines(std::string(10'000, 'y'))).ok());
  int64_t offset = 0;
  int lines = 0;
  for (;;) {
    const std::string piece = *logs.Read(kJob, offset, absl::ZeroDuration());
    if (piece.empty()) break;
    EXPECT_EQ(piece.back(), '\n');
    lines += static_cast<int>(std::count(piece.begin(), piece.end(), '\n'));
    offset += static_cast<int64_t>(piece.size());
  }
  EXPECT_EQ(lines, 11);
}

TEST(StateFolder, BelongsToOneCoordinatorAndItsOwnerAlone) {
  const TestFolder scratch;
  {
    const auto first = StateFolder::Open(scratch / "a/state");
    ASSERT_TRUE(first.ok()) << first.status();
    const auto second = StateFolder::Open(scratch / "a/state");
    EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(second.status().message(), HasSubstr("in use by another coordinator"));
    using std::filesystem::perms;
    EXPECT_EQ(std::filesystem::status(scratch / "a/state").permissions() & (perms::group_all | perms::others_all), perms::none);
  }
  EXPECT_TRUE(StateFolder::Open(scratch / "a/state").ok());
}

TEST(StateFolder, AFolderThatWasThereKeepsItsMode) {
  const TestFolder scratch;
  std::filesystem::permissions(scratch.path(), std::filesystem::perms(0755));
  ASSERT_TRUE(StateFolder::Open(scratch.path()).ok());
  EXPECT_EQ(std::filesystem::status(scratch.path()).permissions(), std::filesystem::perms(0755));
}

TEST(StateFolder, TheSweepTakesWhatACrashLeftAndNothingElse) {
  const TestFolder scratch;
  const auto folder = *StateFolder::Open(scratch / "state");
  const auto write = [&](const std::string& path) {
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << "x";
    return path;
  };
  const std::string known = write(folder->JobPath("j0000001", "model.keras.1")), log = write(folder->JobPath("j0000001", "log"));
  const std::string orphan = write(folder->JobPath("j0000001", "model.keras.2")),
                    lost = write(folder->JobPath("j0000002", "model.keras.1"));
  const std::string incoming = write(folder->NewIncomingPath()), foreign = write(scratch / "state/jobs/thesis/chapter");
  folder->Sweep({"j0000001/model.keras.1"});
  for (const std::string& kept : {known, log, foreign}) EXPECT_TRUE(std::filesystem::exists(kept)) << kept;
  for (const std::string& gone : {orphan, lost, incoming}) EXPECT_FALSE(std::filesystem::exists(gone)) << gone;
  EXPECT_FALSE(std::filesystem::exists(scratch / "state/jobs/j0000002"));
}

}  // namespace
}  // namespace lockstep
