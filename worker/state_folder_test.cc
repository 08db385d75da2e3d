#include "worker/state_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "worker/test_process.h"

namespace lockstep {
namespace {

TEST(StateFolder, TheIdStaysAndLeftoversGo) {
  const TestFolder folder;
  std::string id;
  {
    const auto state = StateFolder::Open(folder / "state");
    ASSERT_TRUE(state.ok()) << state.status();
    id = (*state)->worker_id();
    EXPECT_FALSE(id.empty());
    std::ofstream((*state)->scratch() + "/in_use") << "x";
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "state/scratch"));
  std::filesystem::create_directories(folder / "state/scratch/job.TRAIN.1.0");
  const auto again = StateFolder::Open(folder / "state");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->worker_id(), id);
  EXPECT_TRUE(std::filesystem::is_empty((*again)->scratch()));
}

TEST(StateFolder, OneWorkerAtATimeAndTheOtherTouchesNothing) {
  const TestFolder folder;
  const auto first = StateFolder::Open(folder / "state");
  ASSERT_TRUE(first.ok());
  std::filesystem::create_directories((*first)->scratch() + "/mine");
  const auto second = StateFolder::Open(folder / "state");
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(second.status().message(), testing::HasSubstr("--state-dir"));
  EXPECT_TRUE(std::filesystem::exists((*first)->scratch() + "/mine"));
}

TEST(StateFolder, AnImpossibleFolderIsNamed) {
  const auto state = StateFolder::Open("/dev/null/state");
  ASSERT_FALSE(state.ok());
  EXPECT_THAT(state.status().message(), testing::HasSubstr("/dev/null/state"));
}

}  // namespace
}  // namespace lockstep
