#pragma once
// For tests of whole jobs in one process, on pictures that our own program makes.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/test_folder.h"
#include "memory/cpu_allocator.h"
#include "trainer/planner.h"
#include "trainer/ranks_in_threads.h"
#include "trainer/training.h"

namespace lockstep {

namespace fs = std::filesystem;

inline constexpr int kClasses = 3;
inline constexpr int kTrain = 30;

struct Outcome {
  RunOutcome run;
  Record record;  // rank 0's
};

class Training : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = new TestFolder;
    const std::string command = absl::StrCat(LOCKSTEP_MAKE_PICTURES " --out ", root_->path(), "/pictures --classes ", kClasses, " --train ",
                                             kTrain, " --validation 9 --size 40x32 --seed 3 > /dev/null");
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  static void TearDownTestSuite() { delete root_; }

  void SetUp() override {
    scratch_ = absl::StrCat(root_->path(), "/", testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::create_directories(scratch_);
    spec_.job_id = "test";
    spec_.generation = 1;
    spec_.secret = "secret";
    spec_.address = "127.0.0.1";
    spec_.model_file = "tiny_residual.keras";
    spec_.train_folder = absl::StrCat(root_->path(), "/pictures/train");
    spec_.validation_folder = absl::StrCat(root_->path(), "/pictures/validation");
    spec_.batch = 12;  // 12 + 12 + 6: the last batch is partial
    spec_.epochs = 2;
    spec_.seed = 5;
    spec_.virtual_replicas = 4;
    spec_.threads = 1;
    spec_.log_samples = true;
    spec_.runs = {{0, 4}};
  }

  // The pool is the process's.
  void TearDown() override { memory::CpuTensorPool().SetLimit(0); }

  std::string CopyOfTrain() {
    const std::string copy = absl::StrCat(scratch_, "/train");
    fs::copy(spec_.train_folder, copy, fs::copy_options::recursive);
    return copy;
  }

  PlanOutcome Plan() {
    files_.model = model_;
    files_.train_index = absl::StrCat(scratch_, "/train.index");
    files_.validation_index = spec_.validation_folder.empty() ? "" : absl::StrCat(scratch_, "/validation.index");
    spec_.scratch = scratch_;
    // The same for all plans of a test, though this process is another each time.
    return PlanJob(spec_, files_, []() -> int64_t { return 100 << 20; });
  }

  // Checkpoints go into a folder of the test's.
  void KeepCheckpoints() {
    const std::string kept = absl::StrCat(scratch_, "/checkpoints");
    fs::create_directories(kept);
    const auto copy = [](const std::string& from, const std::string& to) -> absl::Status {
      std::error_code error;
      fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
      return error ? absl::NotFoundError(from) : absl::OkStatus();
    };
    storage_.store = [=](const std::string& name, const std::string& path) { return copy(path, absl::StrCat(kept, "/", name)); };
    storage_.fetch = [=](const std::string& name, const std::string& path) { return copy(absl::StrCat(kept, "/", name), path); };
  }

  // REQUIRES: Plan succeeded.
  absl::StatusOr<Outcome> Run(const RunSpec& planned, const std::vector<allreduce::LeafRange>& runs, int threads, int cancel_after = -1) {
    const int ranks = static_cast<int>(runs.size());
    Meeting meeting(ranks);
    std::vector<absl::StatusOr<RunOutcome>> outcomes(runs.size(), absl::UnknownError("did not run"));
    std::vector<Record> records(runs.size());
    std::vector<std::thread> processes;
    for (int rank = 0; rank < ranks; ++rank) {
      records[static_cast<size_t>(rank)].cancel_after = rank == 0 ? cancel_after : -1;
      processes.emplace_back([&, rank] {
        RunSpec spec = planned;
        spec.runs = runs;
        spec.rank = rank;
        spec.threads = threads;
        spec.scratch = absl::StrCat(scratch_, "/run", ranks, ".", threads, ".", rank);
        fs::create_directories(spec.scratch);
        outcomes[static_cast<size_t>(rank)] =
            RunJob(spec, files_, meeting.For(rank), nullptr, storage_, records[static_cast<size_t>(rank)]);
      });
    }
    for (std::thread& process : processes) process.join();
    for (const auto& outcome : outcomes) {
      if (!outcome.ok()) return outcome.status();
    }
    return Outcome{*outcomes[0], std::move(records[0])};
  }

  static std::vector<std::string> Hashes(const Record& record) {
    std::vector<std::string> hashes;
    for (const StepFigures& step : record.steps) hashes.push_back(step.state_hash);
    return hashes;
  }

  static TestFolder* root_;
  std::string model_ = LOCKSTEP_TEST_DATA "/tiny_residual.keras";
  std::string scratch_;
  RunSpec spec_;
  RunFiles files_;
  CheckpointStorage storage_;
};

inline TestFolder* Training::root_ = nullptr;

}  // namespace lockstep
