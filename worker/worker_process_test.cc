// Real lockstep-worker processes against a fake coordinator and fake trainers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "worker/fake_coordinator.h"
#include "worker/test_worker.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

class WorkerProcess : public testing::Test {
 protected:
  TestWorker Worker(const std::vector<std::string>& more = {}, const std::string& token = kTestToken) {
    return {coordinator_.address(), folder_ / "state", more, token};
  }
  // The job ids that are in its scratch folder.
  std::vector<std::string> Scratch() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "state/scratch")) names.push_back(entry.path().filename());
    return names;
  }

  FakeCoordinator coordinator_;
  const TestFolder folder_;
};

TEST_F(WorkerProcess, SaysWhatItIsAndStartsWhatIsWantedOnce) {
  const TestWorker worker = Worker({"--slots", "3", "--cores", "2", "--memory", "2GiB", "--address", "127.0.0.9"});
  coordinator_.Want({MakeOrder("a", "run"), MakeOrder("b", "done")});
  coordinator_.AwaitRunning("a");
  EXPECT_EQ(coordinator_.AwaitEnd("b").message(), "done");
  const v1::WorkerReport report = coordinator_.Await([](const v1::WorkerReport&) { return true; }, "anything");
  EXPECT_EQ(report.slots(), 3U);
  EXPECT_EQ(report.cores(), 2U);
  EXPECT_EQ(report.memory_bytes(), 2ULL << 30);
  EXPECT_EQ(report.address(), "127.0.0.9");
  EXPECT_EQ(report.version(), LOCKSTEP_VERSION);
  coordinator_.AwaitReports(20);
  EXPECT_EQ(coordinator_.ProcessesOf("a"), 1U);
  EXPECT_EQ(coordinator_.ProcessesOf("b"), 1U) << "started again although it had ended";
}

TEST_F(WorkerProcess, KilledItTakesItsTrainersWithIt) {
  TestWorker worker = Worker();
  coordinator_.Want({MakeOrder("a", "run"), MakeOrder("s", "stubborn")});
  const auto first = static_cast<pid_t>(coordinator_.AwaitRunning("a").pid());
  const auto second = static_cast<pid_t>(coordinator_.AwaitRunning("s").pid());
  worker.Signal(SIGKILL);
  EXPECT_EQ(worker.Wait(), -SIGKILL);
  EXPECT_TRUE(Eventually([&] { return IsGone(first) && IsGone(second); })) << "an orphan runs";
}

TEST_F(WorkerProcess, ADeadOnesIdStaysAndItsLeftoversGo) {
  std::string id;
  coordinator_.Want({MakeOrder("a", "run")});
  {
    TestWorker worker = Worker();
    coordinator_.AwaitRunning("a");
    id = coordinator_.Await([](const v1::WorkerReport&) { return true; }, "anything").worker_id();
    worker.Signal(SIGKILL);
    worker.Wait();
    EXPECT_THAT(Scratch(), testing::ElementsAre("a.TRAIN.1.0"));
  }
  coordinator_.Want({});
  const TestWorker worker = Worker();
  worker.Metrics();
  EXPECT_EQ(coordinator_.Await([](const v1::WorkerReport& report) { return report.trainers_size() == 0; }, "nothing").worker_id(), id);
  EXPECT_THAT(Scratch(), testing::IsEmpty());
}

TEST_F(WorkerProcess, ACrashIsReportedWithItsSignalAndAnExitWithItsWords) {
  const TestWorker worker = Worker();
  coordinator_.Want({MakeOrder("c", "crash"), MakeOrder("e", "exit 3")});
  EXPECT_EQ(coordinator_.AwaitEnd("c").signal(), SIGSEGV);
  const v1::TrainerReport end = coordinator_.AwaitEnd("e");
  EXPECT_EQ(end.exit_code(), 3);
  EXPECT_EQ(end.message(), "gave up");
  coordinator_.AwaitReports(10);
  EXPECT_EQ(coordinator_.EndsOf("c"), 1U) << "told again although it was acknowledged";
  EXPECT_THAT(Scratch(), testing::IsEmpty());
}

TEST_F(WorkerProcess, WhileTheCoordinatorIsAwayTrainersGoOnAndWhatEndedIsToldLater) {
  const TestWorker worker = Worker();
  coordinator_.Want({MakeOrder("a", "run"), MakeOrder("b", "run")});
  const v1::TrainerReport before = coordinator_.AwaitRunning("a");
  const auto victim = static_cast<pid_t>(coordinator_.AwaitRunning("b").pid());
  coordinator_.Stop();
  kill(victim, SIGKILL);
  ASSERT_TRUE(Eventually([victim] { return IsGone(victim); }));
  coordinator_.Start();
  const v1::TrainerReport end = coordinator_.AwaitEnd("b");
  EXPECT_EQ(end.signal(), SIGKILL);
  const v1::WorkerReport report = coordinator_.Await(
      [&](const v1::WorkerReport& one) { return one.trainers_size() == 1 && one.trainers(0).status().step() > before.status().step(); },
      "a further on");
  EXPECT_EQ(report.trainers(0).pid(), before.pid()) << "restarted";
  EXPECT_EQ(coordinator_.ProcessesOf("a"), 1U);
  EXPECT_EQ(coordinator_.ProcessesOf("b"), 1U);
}

TEST_F(WorkerProcess, FindsACoordinatorThatStartsAfterItWithinSeconds) {
  coordinator_.Stop();
  const TestWorker worker = Worker();
  ASSERT_TRUE(Eventually([&] { return absl::StrContains(worker.Log(), "state=away"); }));
  // Long enough for the pauses between attempts to have grown.
  EXPECT_FALSE(Eventually([&] { return std::filesystem::exists(folder_ / "state/ready"); }, absl::Seconds(2)));
  coordinator_.Start();
  EXPECT_TRUE(Eventually([&] { return std::filesystem::exists(folder_ / "state/ready"); }, absl::Seconds(4)));
}

TEST_F(WorkerProcess, ACancelIsHandedOnAndNothingIsKilled) {
  const TestWorker worker = Worker();
  v1::TrainerOrder order = MakeOrder("a", "run");
  coordinator_.Want({order});
  coordinator_.AwaitRunning("a");
  order.set_cancel(true);
  coordinator_.Want({order});
  const v1::TrainerReport end = coordinator_.AwaitEnd("a");
  EXPECT_EQ(end.message(), "cancelled");
  EXPECT_EQ(end.exit_code(), 0);
  EXPECT_EQ(end.signal(), 0);
}

TEST_F(WorkerProcess, WhatIsNotWantedAnyMoreIsStoppedHoweverStubborn) {
  const TestWorker worker = Worker({"--stop-grace-seconds", "0.3"});
  coordinator_.Want({MakeOrder("a", "run"), MakeOrder("s", "stubborn")});
  coordinator_.AwaitRunning("a");
  coordinator_.AwaitRunning("s");
  coordinator_.Want({});
  EXPECT_EQ(coordinator_.AwaitEnd("s").signal(), SIGKILL);
  EXPECT_NE(coordinator_.AwaitEnd("a").signal(), 0);
  EXPECT_THAT(Scratch(), testing::IsEmpty());
}

TEST_F(WorkerProcess, ANewGenerationStartsAfterTheOldOneIsReaped) {
  const TestWorker worker = Worker();
  coordinator_.Want({MakeOrder("s", "stubborn", 1)});
  const auto old = static_cast<pid_t>(coordinator_.AwaitRunning("s", 1).pid());
  coordinator_.Want({MakeOrder("s", "run", 2)});
  coordinator_.AwaitRunning("s", 2);
  EXPECT_TRUE(IsGone(old));
  EXPECT_EQ(coordinator_.AwaitEnd("s", 1).signal(), SIGKILL);
  const std::string log = worker.Log();
  const size_t ended = log.find("generation=1 rank=0 role=TRAIN pid=" + std::to_string(old) + " state=ended");
  const size_t started = log.find("generation=2 rank=0 role=TRAIN pid");
  EXPECT_NE(ended, std::string::npos);
  EXPECT_LT(ended, started);
}

TEST_F(WorkerProcess, LinesAreForwardedAlsoThoseBeforeADeath) {
  const TestWorker worker = Worker();
  coordinator_.Want({MakeOrder("l", "loud 5000"), MakeOrder("d", "done")});
  coordinator_.AwaitEnd("d");
  EXPECT_THAT(coordinator_.LogOf("d"), HasSubstr("ends without a newline\n"));
  EXPECT_TRUE(Eventually([&] { return coordinator_.LogOf("l").find("line 4999\n") != std::string::npos; }));
  const std::string log = coordinator_.LogOf("l");
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 5001) << "a line was lost or came twice";
}

TEST_F(WorkerProcess, OnSigtermItLeavesNothingBehind) {
  TestWorker worker = Worker({"--stop-grace-seconds", "0.3"});
  coordinator_.Want({MakeOrder("a", "run"), MakeOrder("s", "stubborn"), MakeOrder("m", "mute")});
  const auto first = static_cast<pid_t>(coordinator_.AwaitRunning("a").pid());
  const auto second = static_cast<pid_t>(coordinator_.AwaitRunning("s").pid());
  const v1::WorkerReport running =
      coordinator_.Await([](const v1::WorkerReport& report) { return report.trainers_size() == 3; }, "three trainers");
  pid_t third = 0;
  for (const v1::TrainerReport& trainer : running.trainers()) third = trainer.job_id() == "m" ? static_cast<pid_t>(trainer.pid()) : third;
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(), 0);
  coordinator_.Await([](const v1::WorkerReport& report) { return report.leaving(); }, "a goodbye");
  EXPECT_EQ(coordinator_.AwaitEnd("s").signal(), SIGKILL);
  EXPECT_EQ(coordinator_.AwaitEnd("a").signal(), SIGTERM);
  EXPECT_TRUE(IsGone(first) && IsGone(second));
  // It waits to be reaped by whoever takes orphans.
  EXPECT_TRUE(Eventually([third] { return kill(-third, 0) != 0; })) << "a child of a trainer still runs";
  EXPECT_FALSE(std::filesystem::exists(folder_ / "state/scratch"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "state/ready"));
}

TEST_F(WorkerProcess, OnSigtermItEndsAlsoWhileTheCoordinatorIsAway) {
  TestWorker worker = Worker();
  worker.Metrics();
  coordinator_.Stop();
  worker.Signal(SIGTERM);
  EXPECT_EQ(worker.Wait(absl::Seconds(10)), 0);
}

TEST_F(WorkerProcess, DiesWithItsParentIfToldTo) {
  // The parent is a shell of ours that dies first.
  const std::string state = folder_ / "state";
  std::filesystem::create_directories(state);
  coordinator_.Want({MakeOrder("a", "run")});
  const std::string command = absl::StrCat("LOCKSTEP_TOKEN=", kTestToken, " ", LOCKSTEP_WORKER_PROGRAM, " --die-with-parent --coordinator ",
                                           coordinator_.address(), " --state-dir ", state, " --metrics 127.0.0.1:0 --trainer ",
                                           LOCKSTEP_FAKE_TRAINER, " 2>", state, "/log & echo $! >", state, "/pid; read forever");
  // Its input never ends by itself.
  FILE* parent = popen(absl::StrCat("exec sh -c '", command, "'").c_str(), "w");
  ASSERT_NE(parent, nullptr);
  const auto trainer = static_cast<pid_t>(coordinator_.AwaitRunning("a").pid());
  int worker = 0;
  ASSERT_TRUE(absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadFile(state + "/pid").value_or("")), &worker));
  EXPECT_FALSE(IsGone(worker));
  pclose(parent);
  EXPECT_TRUE(Eventually([&] { return IsGone(worker) && IsGone(trainer); })) << ReadFile(state + "/log").value_or("");
}

TEST_F(WorkerProcess, AWrongTokenOrVersionIsSaidSoAndIsNoEndlessRetry) {
  TestWorker stranger = Worker({}, "wrong");
  EXPECT_EQ(stranger.Wait(), 2);
  EXPECT_THAT(stranger.Log(), HasSubstr("refuses this worker"));
  EXPECT_THAT(stranger.Log(), HasSubstr("token"));
  coordinator_.Refuse({grpc::StatusCode::FAILED_PRECONDITION, "worker x is of version 9, this coordinator of version 8"});
  TestWorker other = Worker();
  EXPECT_EQ(other.Wait(), 2);
  EXPECT_THAT(other.Log(), HasSubstr("of version 9"));
}

TEST_F(WorkerProcess, BadFlagsAreNamed) {
  const auto expect = [this](const std::vector<std::string>& more, const std::string& message) {
    TestWorker worker = Worker(more);
    EXPECT_EQ(worker.Wait(), 2) << message;
    EXPECT_THAT(worker.Log(), HasSubstr(message));
  };
  expect({"--trainer", "/no/such/trainer"}, "/no/such/trainer");
  expect({"--metrics", "0.0.0.0:0"}, "--insecure");
  expect({"--token-file", "/no/such/token"}, "/no/such/token");
  expect({"--memory", "many"}, "many");
  expect({"--no-such-flag"}, "--no-such-flag");
  TestWorker first = Worker();
  TestWorker second(coordinator_.address(), folder_ / "other", {"--metrics", first.Metrics()});
  EXPECT_EQ(second.Wait(), 2);
  EXPECT_THAT(second.Log(), HasSubstr("Address already in use"));
  expect({}, "another worker runs in");
}

TEST_F(WorkerProcess, AYamlFileHoldsTheFlags) {
  ASSERT_TRUE(WriteFileAtomically(folder_ / "worker.yaml", "slots: 5\nmemory: 3GiB\nstop-grace-seconds: 0.5\n").ok());
  const TestWorker worker = Worker({"--config", folder_ / "worker.yaml"});
  worker.Metrics();
  const v1::WorkerReport report = coordinator_.Await([](const v1::WorkerReport& one) { return one.slots() == 5; }, "five slots");
  EXPECT_EQ(report.memory_bytes(), 3ULL << 30);
}

}  // namespace
}  // namespace lockstep
