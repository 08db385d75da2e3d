// What a restarted coordinator and a worker that comes back make of each other; leases; watching over restarts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

v1::Job LongJob(uint64_t steps) {
  v1::Job job = SmallJob();
  job.mutable_replicas()->set_max(1);
  job.set_steps(steps);
  return job;
}

struct Training {
  TestingCluster cluster;
  FakeWorker worker{cluster, "w1"};
  std::string job;

  explicit Training(const v1::Job& wanted = LongJob(3)) {
    EXPECT_TRUE(worker.Attend().ok());
    job = cluster.Submit(wanted);
    worker.Obey();
    EXPECT_TRUE(cluster.Plan(job).ok());
    worker.Obey();
    EXPECT_EQ(cluster.State(job), v1::RUNNING);
  }
};

TEST(Recovery, ARunningJobGoesOnWithItsTrainers) {
  Training t;
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 2).ok());
  t.cluster.Restart();
  EXPECT_EQ(t.cluster.State(t.job), v1::RUNNING);
  // The trainer may speak before its worker does.
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 2, 3).ok());
  ASSERT_TRUE(t.worker.Attend().ok());
  ASSERT_EQ(t.worker.Orders().trainers_size(), 1);
  EXPECT_EQ(t.worker.Orders().trainers(0).generation(), 1u);
  EXPECT_EQ(t.cluster.Status(t.job).replicas(0).state(), "running");
  ASSERT_TRUE(t.cluster.End(t.job, 1, v1::DONE).ok());
  EXPECT_EQ(t.cluster.Status(t.job).generation(), 1u);
}

TEST(Recovery, ATrainerThatDiedMeanwhileBreaksTheGeneration) {
  Training t;
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 1).ok());
  t.cluster.Restart();
  t.worker.report().mutable_trainers(0)->set_ended(true);
  t.worker.report().mutable_trainers(0)->set_signal(11);
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_EQ(t.cluster.Status(t.job).generation(), 2u) << "and the next one begins at once";
  EXPECT_EQ(t.cluster.State(t.job), v1::RUNNING);
  EXPECT_GE(t.worker.Orders().acknowledged_sequence(), t.worker.report().sequence());
}

TEST(Recovery, AnOrderThatNeverArrivedIsGivenAgain) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  const std::string job = cluster.Submit(LongJob(3));
  cluster.Restart();
  EXPECT_EQ(cluster.State(job), v1::PLANNING);
  ASSERT_TRUE(worker.Attend().ok());
  ASSERT_EQ(worker.Orders().trainers_size(), 1);
  EXPECT_EQ(worker.Orders().trainers(0).role(), v1::PLAN);
}

TEST(Recovery, AWorkerThatDoesNotComeBackIsLostALeaseAfterTheRestart) {
  Training t;
  t.cluster.Restart();
  t.cluster.Pass(absl::Seconds(9));
  EXPECT_EQ(t.cluster.State(t.job), v1::RUNNING);
  t.cluster.Pass(absl::Seconds(2));
  EXPECT_EQ(t.cluster.State(t.job), v1::QUEUED);
  EXPECT_THAT(t.cluster.Status(t.job).reason(), HasSubstr("no worker is connected"));
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_EQ(t.worker.Orders().trainers_size(), 0) << "what it still runs is of an older generation, and ends first";
  t.worker.Obey();
  EXPECT_EQ(t.cluster.Status(t.job).generation(), 2u);
}

TEST(Recovery, NumbersOfGenerationsAreHandedOutOnceOverRestarts) {
  Training t;
  std::vector<uint64_t> numbers = {1};
  for (int i = 0; i < 3; ++i) {
    t.cluster.Restart();
    ASSERT_TRUE(t.worker.Attend().ok());
    ASSERT_TRUE(t.cluster.Progress(t.job, numbers.back(), i + 1, i + 1).ok());
    t.worker.TrainerEnds(t.job, 0, 1, 0);
    t.cluster.Restart();
    ASSERT_TRUE(t.worker.Attend().ok());
    t.worker.Obey();
    t.worker.Obey();
    numbers.push_back(t.cluster.Status(t.job).generation());
    EXPECT_GT(numbers.back(), *(numbers.rbegin() + 1));
  }
}

TEST(Recovery, AWorkerThatStartedAnewRunsNothingOfBefore) {
  Training t;
  t.worker.BecomeAnother();
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_THAT(AllEvents(t.cluster.coordinator(), t.job).back().state().reason(), testing::AnyOf(HasSubstr("running"), HasSubstr("queued")));
  EXPECT_EQ(t.cluster.Status(t.job).generation(), 2u);
}

TEST(Workers, AnotherVersionIsRefusedByName) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  worker.report().set_version("9.9");
  const absl::Status refused = worker.Attend();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(refused.message(), "worker w1 on host-w1 is of version 9.9, this coordinator of version 1.2.3; install the same on both");
  worker.report().set_version(kTestVersion);
  worker.report().clear_worker_id();
  EXPECT_EQ(worker.Attend().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(cluster->Workers().empty());
}

TEST(Workers, AnIdInUseIsRefusedAndTheSameProcessComesBack) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1"), other(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  ASSERT_TRUE(worker.Report().ok());
  other.report().set_host("elsewhere");
  const absl::Status refused = other.Attend();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("worker id w1 is in use by a live worker on host-w1"));
  const uint64_t old = worker.stream();
  ASSERT_TRUE(worker.Attend().ok()) << "its connection was lost, and the coordinator did not see it";
  EXPECT_EQ(cluster->Report(old, worker.report()).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(cluster->NextOrders(old, 0, absl::ZeroDuration()).status().code(), absl::StatusCode::kAborted);
  cluster->Detach(old);
  EXPECT_TRUE(worker.Report().ok());
}

TEST(Workers, AReportInAnothersNameIsRefused) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  worker.report().set_worker_id("w2");
  EXPECT_EQ(worker.Report().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cluster->Workers().front().worker_id(), "w1");
}

TEST(Workers, ASilentOneIsLostAndItsJobStartsElsewhere) {
  Training t;
  FakeWorker second(t.cluster, "w2");
  ASSERT_TRUE(second.Attend().ok());
  for (int i = 0; i < 4; ++i) {
    t.cluster.Pass(absl::Seconds(3));
    ASSERT_TRUE(second.Report().ok());
  }
  EXPECT_EQ(t.worker.Report().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(t.cluster->Workers().front().state(), "lost");
  EXPECT_EQ(t.cluster.State(t.job), v1::RUNNING);
  EXPECT_EQ(t.cluster.Status(t.job).replicas(0).worker_id(), "w2");
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_EQ(t.worker.Orders().trainers_size(), 0);
  EXPECT_EQ(t.cluster->Workers().front().state(), "connected");
}

TEST(Workers, NobodyIsLostForTheCoordinatorsOwnSilence) {
  Training t;
  t.cluster.clock().Advance(absl::Minutes(3));
  t.cluster->Tick();
  EXPECT_EQ(t.cluster.State(t.job), v1::RUNNING);
  t.cluster.clock().Advance(-absl::Hours(2));
  t.cluster->Tick();
  EXPECT_EQ(t.cluster.State(t.job), v1::RUNNING);
  t.cluster.Pass(absl::Seconds(11));
  EXPECT_EQ(t.cluster.State(t.job), v1::QUEUED) << "its own is still noticed";
}

TEST(Workers, OneThatLeavesIsForgotten) {
  Training t;
  t.worker.Leave();
  EXPECT_TRUE(t.cluster->Workers().empty());
  EXPECT_EQ(t.cluster.State(t.job), v1::QUEUED);
  EXPECT_THAT(t.cluster.Status(t.job).reason(), HasSubstr("no worker is connected"));
}

TEST(Workers, ARankThatDiesOnceAllStepsAreDoneIsNotStartedAgain) {
  Training t(SmallJob());
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 3).ok());
  t.worker.TrainerEnds(t.job, 1, 0, 9);
  EXPECT_EQ(t.cluster.State(t.job), v1::RUNNING);
  EXPECT_EQ(t.worker.Orders().trainers_size(), 1);
  EXPECT_EQ(t.cluster.Status(t.job).replicas_size(), 1);
  t.worker.TrainerEnds(t.job, 0, 0, 0);
  EXPECT_EQ(t.cluster.State(t.job), v1::QUEUED) << "rank 0 ended without having said how the job ended";
}

TEST(Watch, FromAnyEventOnThereAreNoGapsAlsoOverARestart) {
  Training t(LongJob(2'600));
  for (uint64_t step = 1; step < 2'600; step += 100) ASSERT_TRUE(t.cluster.Progress(t.job, 1, step, step + 99).ok());
  for (int pass = 0; pass < 2; ++pass) {
    const uint64_t last = AllEvents(t.cluster.coordinator(), t.job).back().sequence();
    ASSERT_GT(last, 2'600u);
    // What is in memory, what is not any more, and the edge between.
    for (uint64_t after = 0; after <= last; after += after < last - 2'100 && after > 10 ? 97 : after + 3 > last ? 1 : 3) {
      const auto page = t.cluster->ReadEvents(t.job, after, absl::ZeroDuration());
      ASSERT_TRUE(page.ok());
      ASSERT_EQ(page->events.empty(), after == last);
      for (const auto& event : page->events) ASSERT_EQ(event->sequence(), ++after);
      after -= page->events.size();
      ASSERT_FALSE(page->complete);
    }
    EXPECT_EQ(t.cluster->ReadEvents(t.job, last + 1, absl::ZeroDuration()).status().code(), absl::StatusCode::kInvalidArgument);
    t.cluster.Restart();
  }
  ASSERT_TRUE(t.cluster.End(t.job, 1, v1::DONE).ok());
  const auto events = AllEvents(t.cluster.coordinator(), t.job);
  for (size_t i = 0; i < events.size(); ++i) ASSERT_EQ(events[i].sequence(), i + 1);
  EXPECT_EQ(events.back().state().state(), v1::DONE);
  EXPECT_TRUE(t.cluster->ReadEvents(t.job, events.back().sequence(), absl::ZeroDuration())->complete);
}

TEST(Watch, SeesEventsAsTheyHappenWhileEverybodyCalls) {
  Training t(LongJob(300));
  std::atomic<bool> ended{false};
  uint64_t seen = 0;
  bool gap = false;
  std::thread watcher([&] {
    for (bool complete = false; !complete;) {
      const auto page = t.cluster->ReadEvents(t.job, seen, absl::Seconds(10));
      if (!page.ok()) break;
      for (const auto& event : page->events) gap = gap || event->sequence() != ++seen;
      complete = page->complete;
    }
  });
  std::vector<std::thread> others;
  others.emplace_back([&] {
    while (!ended) t.cluster->TakeSnapshot();
  });
  others.emplace_back([&] {
    while (!ended) t.cluster->Tick();
  });
  others.emplace_back([&] {
    for (uint64_t version = 0; !ended;) {
      const auto orders = t.cluster->NextOrders(t.worker.stream(), version, absl::Milliseconds(1));
      if (orders.ok() && orders->has_value()) version = (*orders)->version;
    }
  });
  for (uint64_t step = 1; step <= 300; step += 10) {
    EXPECT_TRUE(t.cluster.Progress(t.job, 1, step, step + 9).ok());
    EXPECT_TRUE(t.worker.Report().ok());
  }
  EXPECT_TRUE(t.cluster.End(t.job, 1, v1::DONE).ok());
  watcher.join();
  ended = true;
  for (std::thread& other : others) other.join();
  EXPECT_FALSE(gap);
  EXPECT_EQ(seen, AllEvents(t.cluster.coordinator(), t.job).size());
}

TEST(Stop, EndsEveryWait) {
  Training t;
  const uint64_t version = (*t.cluster->NextOrders(t.worker.stream(), 0, absl::ZeroDuration()))->version;
  const uint64_t last = AllEvents(t.cluster.coordinator(), t.job).back().sequence();
  absl::Status orders, events;
  std::thread worker([&] { orders = t.cluster->NextOrders(t.worker.stream(), version, absl::Hours(1)).status(); });
  std::thread watcher([&] { events = t.cluster->ReadEvents(t.job, last, absl::Hours(1)).status(); });
  t.cluster->Stop();
  worker.join();
  watcher.join();
  EXPECT_EQ(orders.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(events.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lockstep
