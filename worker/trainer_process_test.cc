#include "worker/trainer_process.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "worker/fake_coordinator.h"
#include "worker/test_process.h"

namespace lockstep {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

class TrainerProcessTest : public testing::Test {
 protected:
  std::unique_ptr<TrainerProcess> Start(const std::string& behaviour) {
    v1::TrainerStart start;
    *start.mutable_order() = MakeOrder("job", behaviour);
    start.set_scratch(scratch_);
    auto process = TrainerProcess::Start(LOCKSTEP_FAKE_TRAINER, start);
    EXPECT_TRUE(process.ok()) << process.status();
    return *std::move(process);
  }
  // Reads until the end, as the supervisor does; what it wrote.
  std::string ReadToEnd(TrainerProcess* process) {
    std::string output;
    for (;;) {
      pollfd ready[] = {{process->pidfd(), POLLIN, 0}, {process->control(), POLLIN, 0}, {process->output(), POLLIN, 0}};
      if (poll(ready, 3, 20'000) <= 0) {
        ADD_FAILURE() << "it does not end";
        return output;
      }
      if (ready[1].revents != 0) process->ReadControl();
      if (ready[2].revents != 0) output += process->ReadOutput();
      if (ready[0].revents == 0) continue;
      process->Reap();
      return output + process->RestOfOutput();
    }
  }

  const TestFolder folder_;
  const std::string scratch_ = folder_ / "scratch";
};

TEST_F(TrainerProcessTest, TellsItsExitItsLastWordsAndAllItsLines) {
  const auto process = Start("exit 3");
  const std::string output = ReadToEnd(process.get());
  EXPECT_TRUE(process->report().ended());
  EXPECT_EQ(process->report().exit_code(), 3);
  EXPECT_EQ(process->report().signal(), 0);
  EXPECT_EQ(process->report().message(), "gave up");
  EXPECT_THAT(output, StartsWith("started exit 3 in "));
  EXPECT_THAT(output, EndsWith("ends without a newline\n"));
  EXPECT_FALSE(std::filesystem::exists(scratch_)) << "its scratch folder is still there";
}

TEST_F(TrainerProcessTest, TellsTheSignalThatItDiedOf) {
  const auto process = Start("crash");
  ReadToEnd(process.get());
  EXPECT_EQ(process->report().signal(), SIGSEGV);
}

TEST_F(TrainerProcessTest, NoLineIsLostHoweverFastTheyCome) {
  const auto process = Start("loud 20000");
  v1::TrainerOrder cancelled;
  cancelled.set_cancel(true);
  process->Tell(cancelled);
  const std::string output = ReadToEnd(process.get());
  EXPECT_THAT(output, HasSubstr("\nline 0\n"));
  EXPECT_THAT(output, HasSubstr("\nline 19999\n"));
  EXPECT_EQ(std::count(output.begin(), output.end(), '\n'), 20'002);
}

TEST_F(TrainerProcessTest, OneThatSendsGarbageIsKilledAndNamed) {
  const auto process = Start("garbage");
  ReadToEnd(process.get());
  EXPECT_EQ(process->report().signal(), SIGKILL);
  EXPECT_THAT(process->report().message(), HasSubstr("no status"));
}

TEST_F(TrainerProcessTest, ItGoesFirstWhenMemoryRunsOut) {
  const auto process = Start("run");
  EXPECT_EQ(ReadFile(absl::StrCat("/proc/", process->report().pid(), "/oom_score_adj")).value(), "500\n");
}

TEST_F(TrainerProcessTest, DestroyingItLeavesNoProcessOfItsGroup) {
  auto process = Start("mute");
  const auto pid = static_cast<pid_t>(process->report().pid());
  std::string output;
  while (output.empty()) output = process->ReadOutput();
  process.reset();
  EXPECT_TRUE(Eventually([pid] { return kill(-pid, 0) != 0; })) << "its child still runs";
  EXPECT_FALSE(std::filesystem::exists(scratch_));
}

TEST_F(TrainerProcessTest, AProgramThatCannotRunIsNamedAndLeavesNothing) {
  v1::TrainerStart start;
  start.set_scratch(scratch_);
  const auto missing = TrainerProcess::Start("/no/such/program", start);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("/no/such/program"));
  EXPECT_EQ(TrainerProcess::Start("/dev/null", start).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_FALSE(std::filesystem::exists(scratch_));
}

TEST(MergeStatus, TotalsNeverGoDownAndAPhaseKeepsTheFigures) {
  v1::TrainerStatus step;
  step.set_phase("training");
  step.set_step(10);
  step.set_images(320);
  step.set_loss(0.5);
  step.set_all_reduce_bytes(1000);
  step.set_out_of_memory_retries(2);
  step.set_refused_allocations(9);
  step.mutable_phase_seconds()->set_total(3);
  step.mutable_memory()->set_peak_bytes(7);
  v1::TrainerStatus saving;
  saving.set_phase("saving");
  saving.set_step(10);
  const v1::TrainerStatus merged = MergeStatus(step, saving);
  EXPECT_EQ(merged.phase(), "saving");
  EXPECT_EQ(merged.images(), 320U);
  EXPECT_EQ(merged.loss(), 0.5);
  EXPECT_EQ(merged.all_reduce_bytes(), 1000U);
  EXPECT_EQ(merged.out_of_memory_retries(), 2U);
  EXPECT_EQ(merged.refused_allocations(), 9U);
  EXPECT_EQ(merged.phase_seconds().total(), 3);
  EXPECT_EQ(merged.memory().peak_bytes(), 7U);
  step.set_loss(0);
  EXPECT_EQ(MergeStatus(merged, step).loss(), 0) << "a loss of 0 is a loss";
}

}  // namespace
}  // namespace lockstep
