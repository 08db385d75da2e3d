#include "client/coordinator_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/test_folder.h"
#include "client/fake_lockstep_service.h"
#include "client/job_watcher.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class CoordinatorClientTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_ / name; }

  struct Watched {
    absl::Status status;
    std::vector<uint64_t> sequences;
    std::vector<std::string> messages;
  };
  Watched Watch(uint64_t after = 0) {
    WatchOptions options;
    options.first_pause = absl::Milliseconds(1);
    options.patience = absl::Seconds(2);
    const RealClock clock;
    JobWatcher watcher(client_, "job-1", after, options, clock);
    Watched watched;
    watched.status = watcher.Run(
        [&](const v1::Event& event) {
          watched.sequences.push_back(event.sequence());
          return absl::OkStatus();
        },
        [&](const std::string& message) { watched.messages.push_back(message); });
    return watched;
  }

  const TestFolder folder_;
  FakeLockstepService service_;
  CoordinatorClient client_{service_.address(), service_.channel_options()};
};

TEST_F(CoordinatorClientTest, SubmitStreamsTheModel) {
  std::string model(5 << 20, 'm');
  model[3 << 20] = 'x';
  ASSERT_TRUE(WriteFileAtomically(Path("m.keras"), model).ok());
  v1::Job job;
  job.set_batch(32);
  const auto id = client_.Submit(job, Path("m.keras"));
  ASSERT_TRUE(id.ok()) << id.status();
  EXPECT_EQ(*id, "job-1");
  EXPECT_EQ(service_.submitted_job().batch(), 32u);
  EXPECT_TRUE(service_.submitted_model() == model);
}

TEST_F(CoordinatorClientTest, ASubmissionWhoseAnswerWasLostIsMadeAgainUnderTheSameName) {
  ASSERT_TRUE(WriteFileAtomically(Path("m.keras"), "model").ok());
  v1::Job job;
  job.set_batch(32);
  service_.LoseAnswersOfSubmit(2);
  const auto id = client_.Submit(job, Path("m.keras"));
  ASSERT_TRUE(id.ok()) << id.status();
  const std::vector<std::string> attempts = service_.request_ids();
  ASSERT_EQ(attempts.size(), 3u);
  EXPECT_EQ(attempts[0].size(), 32u);
  EXPECT_EQ(attempts[1], attempts[0]);
  EXPECT_EQ(attempts[2], attempts[0]);
  ASSERT_TRUE(client_.Submit(job, Path("m.keras")).ok());
  EXPECT_NE(service_.request_ids().back(), attempts[0]) << "another submission";
}

TEST_F(CoordinatorClientTest, SubmitTellsTheCoordinatorsReasonOrOurs) {
  ASSERT_TRUE(WriteFileAtomically(Path("m.keras"), std::string(5 << 20, 'm')).ok());
  EXPECT_EQ(client_.Submit(v1::Job(), Path("m.keras")).status(), absl::InvalidArgumentError("batch: required"));
  v1::Job job;
  job.set_batch(32);
  EXPECT_EQ(client_.Submit(job, Path("missing")).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CoordinatorClientTest, AWrongTokenAndAnAbsentCoordinatorAreNamed) {
  CoordinatorClient stranger(service_.address(), ChannelOptions{"wrong", "", ""});
  const absl::Status refused = stranger.Describe("job-1").status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--token-file"));
  CoordinatorClient nobody("127.0.0.1:1", service_.channel_options());
  EXPECT_THAT(std::string(nobody.Describe("job-1").status().message()), HasSubstr("cannot reach the coordinator at 127.0.0.1:1"));
}

TEST_F(CoordinatorClientTest, ADownloadIsWholeOrNothing) {
  service_.SetArtifact("trained.keras", std::string(3 << 20, 't'));
  ASSERT_TRUE(client_.Download("job-1", "trained.keras", Path("out")).ok());
  EXPECT_EQ(ReadFile(Path("out"))->size(), 3u << 20);
  ASSERT_TRUE(WriteFileAtomically(Path("out"), "old").ok());
  service_.CorruptDownloads();
  EXPECT_EQ(client_.Download("job-1", "trained.keras", Path("out")).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(*ReadFile(Path("out")), "old");
  EXPECT_EQ(client_.Download("job-1", "none", Path("out")).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1) << "something was left behind";
}

TEST_F(CoordinatorClientTest, WatchMissesNothingOverDrops) {
  service_.AddState(v1::RUNNING);
  service_.AddSteps(1, 8);
  service_.AddState(v1::DONE);
  service_.DropWatchAfter({0, 3, 0, 2, 5});
  const Watched watched = Watch();
  EXPECT_TRUE(watched.status.ok()) << watched.status;
  EXPECT_THAT(watched.sequences, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_THAT(service_.watched_after(), ElementsAre(0, 0, 3, 3, 5, 10));
  const auto lost = HasSubstr("trying again");
  const auto back = HasSubstr("connected");
  EXPECT_THAT(watched.messages, ElementsAre(lost, back, lost, back, lost, back, lost)) << "one message for an outage, one for its end";
}

TEST_F(CoordinatorClientTest, WatchBeginsWhereItIsTold) {
  service_.AddSteps(1, 3);
  service_.AddState(v1::FAILED, v1::TRAINING_FAILED);
  EXPECT_THAT(Watch(2).sequences, ElementsAre(3, 4));
}

TEST_F(CoordinatorClientTest, WatchGivesUpWhenPatienceIsOut) {
  service_.AddState(v1::RUNNING);
  WatchOptions options;
  options.first_pause = absl::Milliseconds(1);
  options.patience = absl::Milliseconds(20);
  const RealClock clock;
  JobWatcher watcher(client_, "job-1", 0, options, clock);
  const absl::Status status = watcher.Run([](const v1::Event&) { return absl::OkStatus(); }, [](const std::string&) {});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(CoordinatorClientTest, PatienceIsForOutagesAndNotForLongSteps) {
  service_.AddState(v1::RUNNING);
  service_.AddSteps(1, 2);
  service_.AddState(v1::DONE);
  service_.DropWatchAfter({2});
  ManualClock clock;
  WatchOptions options;
  options.first_pause = absl::Milliseconds(1);
  JobWatcher watcher(client_, "job-1", 0, options, clock);
  int events = 0;
  const absl::Status status = watcher.Run(
      [&](const v1::Event&) {
        // An hour without news before the connection breaks.
        if (++events == 2) clock.Advance(absl::Hours(1));
        return absl::OkStatus();
      },
      [](const std::string&) {});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(events, 4);
}

TEST_F(CoordinatorClientTest, StopEndsCallsUnderWayAndToCome) {
  service_.AddState(v1::RUNNING);
  std::thread stopper([this] { client_.Stop(absl::CancelledError("interrupted")); });
  EXPECT_EQ(Watch().status, absl::CancelledError("interrupted"));
  stopper.join();
  EXPECT_EQ(client_.Describe("job-1").status(), absl::CancelledError("interrupted"));
  EXPECT_EQ(client_.Sleep(absl::InfiniteDuration()), absl::CancelledError("interrupted"));
}

}  // namespace
}  // namespace lockstep
