#include "client/job_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "client/exit_code.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

JobDraft GoodDraft() {
  JobDraft draft;
  draft.model_path = "/m.keras";
  draft.job.set_kind(v1::Job::FIT);
  draft.job.mutable_data()->mutable_train()->set_folder("/train");
  draft.job.set_batch(64);
  draft.job.set_epochs(1);
  return draft;
}

TEST(CheckFields, TruthTable) {
  const struct {
    const char* name;
    std::function<void(JobDraft&)> change;
    const char* error;  // null: none
  } cases[] = {
      {"good", [](JobDraft&) {}, nullptr},
      {"no model", [](JobDraft& d) { d.model_path.clear(); }, "model: required"},
      {"no data", [](JobDraft& d) { d.job.mutable_data()->clear_train(); }, "data.train (--train): required"},
      {"no batch", [](JobDraft& d) { d.job.clear_batch(); }, "batch (--batch): required"},
      {"cpu", [](JobDraft& d) { d.job.set_device(v1::Job::CPU); }, nullptr},
      {"cuda", [](JobDraft& d) { d.job.set_device(v1::Job::CUDA); }, "device (--device): nothing can be run on cuda yet, only planned"},
      {"cuda, planned", [](JobDraft& d) { d.job.set_device(v1::Job::CUDA), d.job.set_plan_only(true); }, nullptr},
      {"no length", [](JobDraft& d) { d.job.clear_length(); }, "epochs (--epochs) or steps"},
      {"no length needed", [](JobDraft& d) { d.job.clear_length(), d.job.set_kind(v1::Job::EVALUATE); }, nullptr},
      {"V divides", [](JobDraft& d) { d.job.set_virtual_replicas(32); }, nullptr},
      {"V does not divide", [](JobDraft& d) { d.job.set_virtual_replicas(3); }, "64 is not a multiple of virtual_replicas, 3"},
      {"as many replicas", [](JobDraft& d) { d.job.mutable_replicas()->set_max(8); }, nullptr},
      {"too many replicas", [](JobDraft& d) { d.job.mutable_replicas()->set_max(9); }, "9 replicas have nothing to do with 8 virtual"},
      {"too many for V", [](JobDraft& d) { d.job.set_virtual_replicas(2), d.job.mutable_replicas()->set_max(3); },
       "3 replicas have nothing to do with 2 virtual"},
      {"min over max", [](JobDraft& d) { d.job.mutable_replicas()->set_min(3), d.job.mutable_replicas()->set_max(2); }, "replicas.min: 3"},
      {"micro-batch", [](JobDraft& d) { d.job.set_micro_batch(9); }, "micro_batch (--micro-batch): 9 is more than the 8"},
      {"mean of two",
       [](JobDraft& d) { d.job.mutable_data()->mutable_image()->add_mean(1), d.job.mutable_data()->mutable_image()->add_mean(1); },
       "data.image.mean: expected 1 or 3"},
      {"std of zero", [](JobDraft& d) { d.job.mutable_data()->mutable_image()->add_std(0); }, "data.image.std: expected numbers over 0"},
      {"monitor without validation", [](JobDraft& d) { d.job.mutable_stop_early()->set_metric("val_loss"); }, "needs data.validation"},
      {"patience without metric", [](JobDraft& d) { d.job.mutable_stop_early()->set_patience(2); }, "stop_early.metric"},
  };
  for (const auto& c : cases) {
    JobDraft draft = GoodDraft();
    c.change(draft);
    if (c.error == nullptr) {
      EXPECT_THAT(CheckFields(draft), IsEmpty()) << c.name;
    } else {
      EXPECT_THAT(CheckFields(draft), ElementsAre(HasSubstr(c.error))) << c.name;
    }
  }
  EXPECT_EQ(CheckFields(JobDraft()).size(), 3u) << "every error at once";
}

TEST(CheckFields, DefaultVirtualReplicas) {
  EXPECT_EQ(DefaultVirtualReplicas(256), 8u);
  EXPECT_EQ(DefaultVirtualReplicas(32), 8u);
  EXPECT_EQ(DefaultVirtualReplicas(24), 4u);
  EXPECT_EQ(DefaultVirtualReplicas(12), 2u);
  EXPECT_EQ(DefaultVirtualReplicas(8), 2u);
  EXPECT_EQ(DefaultVirtualReplicas(7), 1u);
  EXPECT_EQ(DefaultVirtualReplicas(1), 1u);
}

class FilesTest : public testing::Test {
 protected:
  FilesTest() : directory_(std::filesystem::temp_directory_path() / ("lockstep_job_check_test." + std::to_string(getpid()))) {
    std::filesystem::create_directories(directory_);
  }
  ~FilesTest() override { std::filesystem::remove_all(directory_); }
  std::string Write(const std::string& name, const std::string& contents) {
    std::ofstream(directory_ / name) << contents;
    return (directory_ / name).string();
  }
  std::string Path(const std::string& name) const { return (directory_ / name).string(); }

  const std::filesystem::path directory_;
};

TEST_F(FilesTest, ModelFiles) {
  EXPECT_TRUE(CheckModelFile(Write("good.keras", "PK\x03\x04 and more")).ok());
  EXPECT_THAT(std::string(CheckModelFile(Write("text.keras", "not an archive")).message()),
              HasSubstr("text.keras is not a .keras archive"));
  EXPECT_EQ(ExitCodeOf(CheckModelFile(Write("empty.keras", ""))), kExitBadInput);
  EXPECT_EQ(ExitCodeOf(CheckModelFile(Path("missing.keras"))), kExitBadInput);
  EXPECT_THAT(std::string(CheckModelFile(directory_.string()).message()), HasSubstr("is not a file"));
}

TEST_F(FilesTest, Folders) {
  v1::Job job;
  job.set_kind(v1::Job::FIT);
  job.mutable_data()->mutable_train()->set_folder(Path("none"));
  job.mutable_data()->mutable_validation()->set_folder(Write("file", "x"));
  EXPECT_THAT(CheckFolders(job), ElementsAre("data.train (--train): no such folder: " + Path("none"),
                                             "data.validation (--validation): not a folder: " + Path("file")));
  job.mutable_data()->mutable_train()->set_folder(directory_.string());
  job.mutable_data()->clear_validation();
  EXPECT_THAT(CheckFolders(job), IsEmpty());
}

TEST_F(FilesTest, OutputsAreCheckedBeforehandAndLeaveNothing) {
  EXPECT_TRUE(CheckOutputFile(Path("out.keras")).ok());
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
  EXPECT_THAT(std::string(CheckOutputFile(Path("none/out.keras")).message()), HasSubstr("no such folder"));
  EXPECT_THAT(std::string(CheckOutputFile(directory_.string()).message()), HasSubstr("is a folder"));
  EXPECT_FALSE(CheckOutputFile("/proc/out.keras").ok());
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(std::string(CheckOutputFile(Path("pipe")).message()), HasSubstr("is not a file"));
  EXPECT_TRUE(CheckOutputFile(Write("old.keras", "x")).ok());
}

TEST(ExitCodes, OfJobsAndCalls) {
  EXPECT_EQ(ExitCodeOf(v1::DONE, v1::NO_FAILURE), 0);
  EXPECT_EQ(ExitCodeOf(v1::FAILED, v1::TRAINING_FAILED), 1);
  EXPECT_EQ(ExitCodeOf(v1::FAILED, v1::NO_FAILURE), 1);
  EXPECT_EQ(ExitCodeOf(v1::FAILED, v1::BAD_INPUT), 2);
  EXPECT_EQ(ExitCodeOf(v1::REFUSED, v1::BAD_INPUT), 2);
  EXPECT_EQ(ExitCodeOf(v1::REFUSED, v1::OUT_OF_MEMORY), 3);
  EXPECT_EQ(ExitCodeOf(v1::FAILED, v1::OUT_OF_MEMORY), 3);
  EXPECT_EQ(ExitCodeOf(v1::CANCELLED, v1::NO_FAILURE), 130);
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::UnauthenticatedError("")), 2);
  EXPECT_EQ(ExitCodeOf(absl::UnknownError("disk")), 1);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), 1);
}

}  // namespace
}  // namespace lockstep
