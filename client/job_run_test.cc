// The program from its arguments to its exit status, against a coordinator in memory.

#include "client/job_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "client/commands.h"
#include "client/fake_lockstep_service.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

class JobRunTest : public testing::Test {
 protected:
  JobRunTest() : directory_(std::filesystem::temp_directory_path() / absl::StrCat("lockstep_job_run_test.", getpid())) {
    std::filesystem::create_directories(directory_ / "train");
    std::ofstream(directory_ / "m.keras") << "PK\x03\x04 a model";
    std::ofstream(directory_ / "token") << FakeLockstepService::kToken << "\n";
  }
  ~JobRunTest() override { std::filesystem::remove_all(directory_); }
  std::string Path(const std::string& name) const { return (directory_ / name).string(); }

  struct Outcome {
    int exit_code = -1;
    std::string out;
    std::string error;
  };
  Outcome Lockstep(std::vector<std::string> arguments, bool with_coordinator = true) {
    if (with_coordinator) {
      for (const std::string& more : {std::string("--coordinator"), service_.address(), std::string("--token-file"), Path("token")}) {
        arguments.push_back(more);
      }
    }
    std::vector<const char*> argv = {"lockstep"};
    for (const std::string& argument : arguments) argv.push_back(argument.c_str());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    Outcome outcome;
    const auto parsed = ParseCommandLine(static_cast<int>(argv.size()), argv.data());
    if (const int* code = std::get_if<int>(&parsed)) {
      outcome.exit_code = *code;
    } else {
      const auto& line = std::get<CommandLine>(parsed);
      const bool run = line.command <= Command::kPlan;
      outcome.exit_code = run ? RunJob(line) : RunCommand(line);
    }
    outcome.out = testing::internal::GetCapturedStdout();
    outcome.error = testing::internal::GetCapturedStderr();
    return outcome;
  }
  std::vector<std::string> Fit(const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"fit", Path("m.keras"), "--train",         Path("train"), "--batch", "8", "--epochs",
                                          "1",   "--out",         Path("out.keras"), "--seed",      "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  void ServeDone() {
    service_.AddState(v1::RUNNING);
    service_.AddSteps(1, 3);
    service_.AddState(v1::DONE);
    v1::JobStatus status;
    status.set_job_id("job-1");
    status.set_state(v1::DONE);
    status.set_generation(1);
    status.add_artifacts("trained.keras");
    status.mutable_result()->set_steps(3);
    status.mutable_result()->set_state_hash("abc");
    service_.SetStatus(status);
    service_.SetArtifact("trained.keras", "trained");
  }
  void ServeEnd(v1::JobState state, v1::FailureKind failure, const std::string& reason) {
    service_.AddState(state, failure);
    v1::JobStatus status;
    status.set_state(state);
    status.set_failure(failure);
    status.set_reason(reason);
    service_.SetStatus(status);
  }

  const std::filesystem::path directory_;
  FakeLockstepService service_;
};

TEST_F(JobRunTest, FitBringsTheModelTheSummaryAndTheStepLog) {
  ServeDone();
  const Outcome outcome = Lockstep(Fit({"--summary", Path("s.json"), "--step-log", Path("steps.jsonl"), "--replicas", "2"}));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_EQ(outcome.error, "");
  EXPECT_THAT(outcome.out, HasSubstr("Trained model: " + Path("out.keras")));
  EXPECT_EQ(*ReadFile(Path("out.keras")), "trained");
  const auto summary = nlohmann::json::parse(*ReadFile(Path("s.json")));
  EXPECT_EQ(summary["steps"], 3);
  EXPECT_EQ(summary["state_hash"], "abc");
  const std::string log = *ReadFile(Path("steps.jsonl"));
  EXPECT_EQ(std::count(log.begin(), log.end(), '\n'), 3);
  const v1::Job job = service_.submitted_job();
  EXPECT_EQ(job.kind(), v1::Job::FIT);
  EXPECT_EQ(job.name(), "m");
  EXPECT_EQ(job.model().file_name(), "m.keras");
  EXPECT_EQ(job.model().size_bytes(), 12u);
  EXPECT_EQ(job.model().xxh3_128().size(), 32u);
  EXPECT_EQ(job.replicas().max(), 2u);
  EXPECT_EQ(job.seed(), 3u);
}

TEST_F(JobRunTest, ExitCodesSayWhyItEnded) {
  const struct {
    v1::JobState state;
    v1::FailureKind failure;
    int exit_code;
  } cases[] = {{v1::REFUSED, v1::BAD_INPUT, 2},
               {v1::REFUSED, v1::OUT_OF_MEMORY, 3},
               {v1::FAILED, v1::TRAINING_FAILED, 1},
               {v1::CANCELLED, v1::NO_FAILURE, 130}};
  for (const auto& c : cases) {
    ServeEnd(c.state, c.failure, "because of the test");
    const Outcome outcome = Lockstep(Fit({"--summary", Path("s.json")}));
    EXPECT_EQ(outcome.exit_code, c.exit_code);
    EXPECT_THAT(outcome.error, HasSubstr("because of the test"));
    EXPECT_EQ(nlohmann::json::parse(*ReadFile(Path("s.json")))["reason"], "because of the test");
    EXPECT_FALSE(std::filesystem::exists(Path("out.keras")));
  }
}

TEST_F(JobRunTest, EveryMistakeAtOnceBeforeAnythingStarts) {
  const Outcome outcome = Lockstep({"fit", Path("none.keras"), "--train", Path("missing"), "--out", Path("no/such/out.keras"), "--summary",
                                    Path("no/s.json"), "--virtual-replicas", "3", "--batch", "8", "--replicas", "4"},
                                   /*with_coordinator=*/false);
  EXPECT_EQ(outcome.exit_code, 2);
  for (const char* part : {"none.keras", "missing", "--out: cannot write", "--summary: cannot write", "epochs (--epochs)",
                           "8 is not a multiple of virtual_replicas, 3"}) {
    EXPECT_THAT(outcome.error, HasSubstr(part));
  }
  EXPECT_THAT(Lockstep({"fit", "--epochs", "1", "--steps", "2"}, false).error, HasSubstr("cannot both be given"));
}

TEST_F(JobRunTest, AnOutputThatCannotBeWrittenLosesNothing) {
  ServeDone();
  service_.CorruptDownloads();
  const Outcome outcome = Lockstep(Fit());
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.error, HasSubstr("nothing is lost: lockstep download job-1"));
  EXPECT_FALSE(std::filesystem::exists(Path("out.keras")));
}

TEST_F(JobRunTest, AStepLogOnAFullDiskIsTold) {
  ServeDone();
  const Outcome outcome = Lockstep(Fit({"--step-log", "/dev/full"}));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.error, HasSubstr("the step log is not whole"));
  EXPECT_EQ(*ReadFile(Path("out.keras")), "trained") << "the model comes all the same";
}

TEST_F(JobRunTest, TheYamlAndTheFlags) {
  ServeDone();
  std::ofstream(Path("job.yaml")) << "model: m.keras\ndata: {train: train, shuffle: false}\nbatch: 16\nsteps: 9\n";
  EXPECT_EQ(Lockstep({"fit", "--job", Path("job.yaml"), "--batch", "32", "--out", Path("out.keras")}).exit_code, 0);
  EXPECT_EQ(service_.submitted_job().batch(), 32u);
  EXPECT_EQ(service_.submitted_job().steps(), 9u);
  EXPECT_EQ(service_.submitted_job().data().train().folder(), Path("train"));
  std::ofstream(Path("bad.yaml")) << "modle: m.keras\n";
  const Outcome bad = Lockstep({"fit", "--job", Path("bad.yaml")});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.error, HasSubstr("bad.yaml:1: modle: unknown key; did you mean 'model'?"));
}

TEST_F(JobRunTest, PredictAndEvaluate) {
  ServeDone();
  service_.SetArtifact("predictions.csv", "path,class\n");
  EXPECT_EQ(Lockstep({"predict", Path("m.keras"), "--data", Path("train"), "--batch", "4", "--out", Path("p.csv")}).exit_code, 0);
  EXPECT_EQ(*ReadFile(Path("p.csv")), "path,class\n");
  EXPECT_EQ(service_.submitted_job().kind(), v1::Job::PREDICT);
  EXPECT_EQ(Lockstep({"evaluate", Path("m.keras"), "--data", Path("train"), "--batch", "4"}).exit_code, 0);
  EXPECT_EQ(service_.submitted_job().kind(), v1::Job::EVALUATE);
  EXPECT_EQ(Lockstep({"predict", Path("m.keras"), "--data", Path("train"), "--batch", "4"}).exit_code, 2) << "--out is required";
  EXPECT_EQ(Lockstep({"evaluate", Path("m.keras"), "--data", Path("train"), "--batch", "4", "--epochs", "3"}).exit_code, 2);
}

TEST_F(JobRunTest, PlanSaysWhatItFoundAndDrawsIt) {
  service_.AddState(v1::DONE);
  v1::JobStatus status;
  status.set_job_id("job-1");
  status.set_state(v1::DONE);
  status.mutable_profile()->set_resident_bytes(5 << 20);
  status.mutable_profile()->set_at_peak("forward conv1");
  service_.SetStatus(status);
  const std::vector<std::string> plan = {"plan", Path("m.keras"), "--train", Path("train"), "--batch", "8", "--svg", Path("m.svg")};
  const Outcome told = Lockstep(plan);
  EXPECT_EQ(told.exit_code, 0) << told.error;
  EXPECT_THAT(told.out, HasSubstr("forward conv1"));
  EXPECT_THAT(*ReadFile(Path("m.svg")), testing::StartsWith("<svg "));
  EXPECT_TRUE(service_.submitted_job().plan_only());
  EXPECT_EQ(service_.submitted_job().kind(), v1::Job::FIT);
  EXPECT_EQ(service_.submitted_job().epochs(), 1u);
  std::vector<std::string> json = plan;
  json.insert(json.end(), {"--json", "--steps", "9"});
  EXPECT_EQ(nlohmann::json::parse(Lockstep(json).out)["trainer_bytes"], 5 << 20) << "nothing but JSON";
  EXPECT_EQ(service_.submitted_job().steps(), 9u);
  std::vector<std::string> cuda = plan;
  cuda.insert(cuda.end(), {"--device", "cuda", "--memory-limit", "2GiB"});
  EXPECT_EQ(Lockstep(cuda).exit_code, 0);
  EXPECT_EQ(service_.submitted_job().device(), v1::Job::CUDA);
  EXPECT_EQ(service_.submitted_job().memory().limit_bytes(), uint64_t{2} << 30);
  std::ofstream(Path("job.yaml")) << "model: m.keras\nkind: evaluate\ndata: {train: train}\nbatch: 4\nmemory: none\n";
  EXPECT_EQ(Lockstep({"plan", "--job", Path("job.yaml")}).exit_code, 0);
  EXPECT_EQ(service_.submitted_job().kind(), v1::Job::EVALUATE);
  EXPECT_EQ(service_.submitted_job().memory().remedies(), "none");
  status.set_state(v1::REFUSED);
  status.set_failure(v1::OUT_OF_MEMORY);
  status.set_reason("memory.limit: too little");
  service_.SetStatus(status);
  const Outcome refused = Lockstep(plan);
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.out, HasSubstr("forward conv1")) << "also of what is refused";
  EXPECT_THAT(refused.error, HasSubstr("refused: memory.limit: too little"));
  status.clear_profile();
  service_.SetStatus(status);
  std::filesystem::remove(Path("m.svg"));
  EXPECT_THAT(Lockstep(plan).error, HasSubstr("--svg: there is nothing to draw"));
  EXPECT_FALSE(std::filesystem::exists(Path("m.svg")));
}

TEST_F(JobRunTest, NothingRunsOnCudaYetAndThatIsSaidBeforeAnythingStarts) {
  std::vector<std::vector<std::string>> commands;
  for (const char* command : {"fit", "submit", "evaluate", "predict"}) {
    const bool trains = command[0] == 'f' || command[0] == 's';
    std::vector<std::string> arguments = {command, Path("m.keras"), trains ? "--train" : "--data", Path("train"), "--batch", "8"};
    if (trains) arguments.insert(arguments.end(), {"--epochs", "1"});
    if (command[0] == 'p') arguments.insert(arguments.end(), {"--out", Path("p.csv")});
    arguments.insert(arguments.end(), {"--device", "cuda"});
    const Outcome outcome = Lockstep(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << command;
    EXPECT_THAT(outcome.error, HasSubstr("device (--device): nothing can be run on cuda yet, only planned (lockstep plan)")) << command;
    EXPECT_EQ(service_.submitted_job().batch(), 0u) << command;
  }
}

TEST_F(JobRunTest, PlanRefusesWhatItCannotDoBeforeAnythingStarts) {
  const std::vector<std::string> plan = {"plan", Path("m.keras"), "--train", Path("train"), "--batch", "8"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = plan;
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Lockstep(arguments, /*with_coordinator=*/false);
  };
  for (const std::vector<std::string>& wrong : std::vector<std::vector<std::string>>{{"--device", "tpu"},
                                                                                     {"--svg", Path("no/such/m.svg")},
                                                                                     {"--svg", Path("train")},
                                                                                     {"--memory-remedies", "all"},
                                                                                     {"--out", Path("out.keras")}}) {
    const Outcome outcome = with(wrong);
    EXPECT_EQ(outcome.exit_code, 2) << wrong[1];
    EXPECT_THAT(outcome.error, HasSubstr(wrong[0]));
  }
  EXPECT_EQ(Lockstep({"plan", Path("m.keras"), "--batch", "8"}, false).exit_code, 2) << "--train is required";
}

TEST_F(JobRunTest, CommandsForARunningCoordinator) {
  ServeDone();
  std::vector<std::string> submit = Fit();
  submit.erase(std::find(submit.begin(), submit.end(), "--out"), std::find(submit.begin(), submit.end(), "--seed"));
  submit[0] = "submit";
  const Outcome submitted = Lockstep(submit);
  EXPECT_EQ(submitted.exit_code, 0) << submitted.error;
  EXPECT_EQ(submitted.out, "job-1\n");
  const Outcome described = Lockstep({"describe", "job-1", "--json"});
  EXPECT_EQ(nlohmann::json::parse(described.out)["state"], "DONE");
  EXPECT_EQ(Lockstep({"describe", "job-2"}).exit_code, 2);
  const Outcome watched = Lockstep({"watch", "job-1", "--after", "3", "--json"});
  EXPECT_EQ(std::count(watched.out.begin(), watched.out.end(), '\n'), 2);
  EXPECT_EQ(Lockstep({"cancel", "job-1"}).out, "done\n");
  EXPECT_EQ(service_.cancels(), 1);
  const Outcome scaled = Lockstep({"scale", "job-1", "--min", "2", "--max", "4", "--json"});
  EXPECT_EQ(scaled.exit_code, 0) << scaled.error;
  EXPECT_EQ(nlohmann::json::parse(scaled.out)["resolved"]["replicas"]["max"], 4);
  EXPECT_EQ(Lockstep({"scale", "job-1"}).exit_code, 2);
  EXPECT_EQ(Lockstep({"download", "job-1", "--out", Path("d.keras")}).exit_code, 0);
  EXPECT_EQ(*ReadFile(Path("d.keras")), "trained");
  EXPECT_EQ(Lockstep({"list"}, /*with_coordinator=*/false).exit_code, 2);
  EXPECT_EQ(Lockstep({"frobnicate"}).exit_code, 2);
}

}  // namespace
}  // namespace lockstep
