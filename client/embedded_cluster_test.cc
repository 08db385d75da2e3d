#include "client/embedded_cluster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/file.h"
#include "client/interrupts.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

// Shell scripts in place of the programs, in a folder whose path TMPDIR is: so that leftovers show.
class EmbeddedClusterTest : public testing::Test {
 protected:
  EmbeddedClusterTest() : directory_(std::filesystem::temp_directory_path() / absl::StrCat("lockstep_embedded_test.", getpid())) {
    std::filesystem::create_directories(directory_ / "bin");
    std::filesystem::create_directories(directory_ / "tmp");
    setenv("TMPDIR", (directory_ / "tmp").c_str(), 1);
    Program("lockstep-trainer", "exit 0");
    Program("lockstep-worker", "exec sleep 1000");
    Program("lockstep-coordinator", kServes);
    options_.program_folder = (directory_ / "bin").string();
  }
  ~EmbeddedClusterTest() override {
    unsetenv("TMPDIR");
    std::filesystem::remove_all(directory_);
  }

  void Program(const std::string& name, const std::string& body) {
    const std::filesystem::path path = directory_ / "bin" / name;
    std::ofstream(path) << "#!/bin/sh\n" << body << "\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  size_t Leftovers() const { return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_ / "tmp"), {})); }

  // Takes --ready-file from among its arguments.
  static constexpr const char* kServes = R"(echo "$@" > "$(dirname "$0")/arguments"
while [ $# -gt 0 ]; do [ "$1" = --ready-file ] && ready=$2; shift; done
echo '{"grpc":"127.0.0.1:4321","pid":1}' > "$ready.new" && mv "$ready.new" "$ready"
exec sleep 1000)";

  const std::filesystem::path directory_;
  EmbeddedOptions options_;
};

TEST_F(EmbeddedClusterTest, StartsServesAndLeavesNothing) {
  {
    const auto cluster = EmbeddedCluster::Start(options_);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    EXPECT_EQ((*cluster)->address(), "127.0.0.1:4321");
    EXPECT_EQ((*cluster)->channel_options().token.size(), 64u);
    EXPECT_EQ(*ReadFile((*cluster)->folder() + "/token"), (*cluster)->channel_options().token);
    EXPECT_EQ(Leftovers(), 1u);
    const std::string arguments = *ReadFile((directory_ / "bin/arguments").string());
    EXPECT_THAT(arguments, HasSubstr("--listen 127.0.0.1:0"));
    EXPECT_THAT(arguments, HasSubstr("--die-with-parent"));
    EXPECT_THAT(arguments, testing::Not(HasSubstr((*cluster)->channel_options().token))) << "a token that ps can show";
  }
  EXPECT_EQ(Leftovers(), 0u);
}

TEST_F(EmbeddedClusterTest, AMissingProgramIsNamed) {
  std::filesystem::remove(directory_ / "bin/lockstep-worker");
  const absl::Status status = EmbeddedCluster::Start(options_).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("bin/lockstep-worker"));
  EXPECT_EQ(Leftovers(), 0u);
}

TEST_F(EmbeddedClusterTest, AFolderWithoutRoomIsRefusedBeforeTraining) {
  options_.folder_bytes = UINT64_MAX;
  const absl::Status status = EmbeddedCluster::Start(options_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(std::string(status.message()), HasSubstr("TMPDIR"));
  EXPECT_EQ(Leftovers(), 0u);
}

TEST_F(EmbeddedClusterTest, ACoordinatorThatCannotStartIsQuoted) {
  Program("lockstep-coordinator", "echo 'the disk is on fire' >&2; exit 7");
  const absl::Status status = EmbeddedCluster::Start(options_).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("exit status 7"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("the disk is on fire"));
  EXPECT_EQ(Leftovers(), 0u);
}

TEST_F(EmbeddedClusterTest, AnInterruptEndsTheWaiting) {
  Program("lockstep-coordinator", "exec sleep 1000");
  options_.interrupted = [] { return true; };
  EXPECT_EQ(EmbeddedCluster::Start(options_).status(), absl::CancelledError("interrupted"));
  EXPECT_EQ(Leftovers(), 0u);
}

TEST_F(EmbeddedClusterTest, ADeathIsTold) {
  Program("lockstep-worker", "read line < \"$(dirname \"$0\")/fifo\"; echo out of luck; exit 3");
  const std::string fifo = (directory_ / "bin/fifo").string();
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const auto cluster = EmbeddedCluster::Start(options_);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  absl::Notification told;
  absl::Status how;
  (*cluster)->OnDeath([&](const absl::Status& status) {
    how = status;
    told.Notify();
  });
  std::ofstream(fifo) << "die\n";
  ASSERT_TRUE(told.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_THAT(std::string(how.message()), HasSubstr("the worker ended by itself (exit status 3)"));
  EXPECT_THAT(std::string(how.message()), HasSubstr("out of luck"));
}

TEST_F(EmbeddedClusterTest, WhatTheProgramsLeaveBehindIsReaped) {
  // A trainer that outlives its worker; its pid comes through the fifo.
  Program("lockstep-worker", "setsid sleep 0.2 & echo $! > \"$(dirname \"$0\")/fifo\"; exec sleep 1000");
  const std::string fifo = (directory_ / "bin/fifo").string();
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  pid_t orphan = 0;
  {
    const auto cluster = EmbeddedCluster::Start(options_);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    std::ifstream(fifo) >> orphan;
    ASSERT_GT(orphan, 0);
  }
  EXPECT_NE(kill(orphan, 0), 0) << "it is still there";
}

TEST_F(EmbeddedClusterTest, KeepsWhatMustNotBeLost) {
  {
    const auto cluster = EmbeddedCluster::Start(options_);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    const std::string kept = (*cluster)->folder() + "/kept";
    ASSERT_TRUE(MakeDirectories(kept).ok());
    ASSERT_TRUE(WriteFileAtomically(kept + "/model.keras", "weights").ok());
    (*cluster)->KeepFolder(kept);
  }
  ASSERT_EQ(Leftovers(), 1u);
  const auto folder = std::filesystem::directory_iterator(directory_ / "tmp")->path();
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  EXPECT_EQ(*ReadFile((folder / "kept/model.keras").string()), "weights");
}

TEST(Interrupts, SignalsBecomeCalls) {
  Interrupts interrupts;
  EXPECT_EQ(interrupts.count(), 0);
  absl::Notification first;
  absl::Notification second;
  interrupts.Handle([&](int count) { (count == 1 ? first : second).Notify(); });
  kill(getpid(), SIGINT);
  ASSERT_TRUE(first.WaitForNotificationWithTimeout(absl::Seconds(20)));
  kill(getpid(), SIGTERM);
  ASSERT_TRUE(second.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(interrupts.count(), 2);
  int late = 0;
  interrupts.Handle([&](int count) { late = count; });
  EXPECT_EQ(late, 2) << "an interrupt that came early is not lost";
  interrupts.Handle(nullptr);
}

}  // namespace
}  // namespace lockstep
