#include "coordinator/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "absl/strings/str_cat.h"
#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

v1::Job OneReplica() {
  v1::Job job = SmallJob();
  job.mutable_replicas()->set_max(1);
  return job;
}

absl::StatusOr<std::optional<v1::RendezvousResponse>> Meet(TestingCluster& cluster, const std::string& job, uint64_t generation,
                                                           uint32_t rank, const std::string& address, const std::string& cpu = "AVX512") {
  v1::RendezvousRequest request;
  request.set_job_id(job);
  request.set_generation(generation);
  request.set_rank(rank);
  request.mutable_endpoint()->set_address(address);
  (*request.mutable_environment())["cpu_capability"] = cpu;
  return cluster->Rendezvous(request, absl::ZeroDuration());
}

std::vector<std::string> States(const TestingCluster& cluster, const std::string& job) {
  std::vector<std::string> states;
  for (const v1::Event& event : AllEvents(cluster.coordinator(), job)) {
    if (event.has_state()) states.push_back(v1::JobState_Name(event.state().state()));
  }
  return states;
}

// A cluster with one worker, on which a job trains on two replicas that have met.
struct Training {
  TestingCluster cluster;
  FakeWorker worker{cluster, "w1"};
  std::string job;

  explicit Training(const v1::Job& wanted = SmallJob()) {
    EXPECT_TRUE(worker.Attend().ok());
    job = cluster.Submit(wanted);
    worker.Obey();
    EXPECT_TRUE(cluster.Plan(job).ok());
    worker.Obey();
    EXPECT_EQ(cluster.State(job), v1::RUNNING);
    Gather(1);
  }
  void Gather(uint64_t generation) {
    const int ranks = cluster.Status(job).replicas_size();
    for (int rank = 0; rank < ranks; ++rank) EXPECT_TRUE(Meet(cluster, job, generation, rank, absl::StrCat(rank)).ok());
  }
};

TEST(Coordinator, AJobFromSubmitToDone) {
  TestingCluster cluster;
  const std::string job = cluster.Submit(SmallJob());
  EXPECT_EQ(cluster.Status(job).reason(), "waiting to plan: no worker is connected");
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  EXPECT_EQ(cluster.State(job), v1::PLANNING);
  v1::WorkerOrders orders = worker.Orders();
  ASSERT_EQ(orders.trainers_size(), 1);
  EXPECT_EQ(orders.trainers(0).role(), v1::PLAN);
  EXPECT_EQ(orders.trainers(0).artifacts_size(), 0);
  worker.Obey();
  ASSERT_TRUE(cluster->StoreArtifact(job, 0, {"train.index", "train.index.1", 5, "1"}).ok());
  ASSERT_TRUE(cluster.Plan(job).ok());
  ASSERT_TRUE(cluster.Plan(job).ok()) << "made again after a lost answer";
  orders = worker.Orders();
  ASSERT_EQ(orders.trainers_size(), 2);
  EXPECT_EQ(orders.trainers(1).role(), v1::TRAIN);
  EXPECT_EQ(orders.trainers(1).rank(), 1u);
  EXPECT_EQ(orders.trainers(1).members_size(), 2);
  EXPECT_EQ(orders.trainers(1).generation_secret(), orders.trainers(0).generation_secret());
  EXPECT_EQ(orders.trainers(0).generation_secret().size(), 32u);
  EXPECT_THAT(orders.trainers(0).artifacts(), ElementsAre("train.index"));
  worker.Obey();
  EXPECT_FALSE(Meet(cluster, job, 1, 0, "a")->has_value());
  EXPECT_EQ((*Meet(cluster, job, 1, 1, "b"))->endpoints_size(), 2);
  EXPECT_EQ((*Meet(cluster, job, 1, 0, "a"))->endpoints(1).address(), "b");
  ASSERT_TRUE(cluster.Progress(job, 1, 1, 3).ok());
  ASSERT_TRUE(cluster.End(job, 1, v1::DONE).ok());
  ASSERT_TRUE(cluster.End(job, 1, v1::DONE).ok()) << "made again after a lost answer";
  EXPECT_EQ(cluster.End(job, 1, v1::FAILED).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(worker.Orders().trainers_size(), 0);
  EXPECT_THAT(States(cluster, job), ElementsAre("SUBMITTED", "PLANNING", "QUEUED", "RUNNING", "DONE"));
  EXPECT_EQ(cluster.Status(job).result().steps(), 3u);
}

TEST(Coordinator, APlanWithErrorsRefusesTheJob) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  const std::string job = cluster.Submit(SmallJob());
  v1::PlanReport plan;
  plan.set_job_id(job);
  plan.add_errors("model: layer Foo is not known");
  plan.add_errors("data.train: is empty");
  ASSERT_TRUE(cluster->ReportPlan(plan).ok());
  EXPECT_EQ(cluster.State(job), v1::REFUSED);
  EXPECT_EQ(cluster.Status(job).failure(), v1::BAD_INPUT);
  EXPECT_EQ(cluster.Status(job).reason(), "model: layer Foo is not known\ndata.train: is empty");
}

TEST(Coordinator, WhatFitsNoWorkersMemoryIsRefusedWithWhatWouldFit) {
  TestingCluster cluster;
  FakeWorker small(cluster, "small", 2, 90 << 20);
  ASSERT_TRUE(small.Attend().ok());
  const std::string job = cluster.Submit(SmallJob());
  small.Obey();
  ASSERT_TRUE(cluster.Plan(job).ok());
  EXPECT_EQ(cluster.State(job), v1::REFUSED);
  EXPECT_EQ(cluster.Status(job).failure(), v1::OUT_OF_MEMORY);
  EXPECT_THAT(cluster.Status(job).reason(), HasSubstr("it takes a worker with 100 MiB"));
}

TEST(Coordinator, ASubmissionOfOneNameIsOneJobAfterARestartToo) {
  TestingCluster cluster;
  const auto submit = [&](const std::string& name, const v1::Job& job) {
    return cluster->Submit(cluster->NewJobId(), name, job, ModelOf(job));
  };
  const std::string job = *submit("r1", SmallJob());
  EXPECT_EQ(*submit("r1", SmallJob()), job);
  EXPECT_NE(*submit("r2", SmallJob()), job);
  EXPECT_NE(*submit("", SmallJob()), *submit("", SmallJob())) << "without a name each is its own";
  for (int restart = 0; restart < 2; ++restart) {
    EXPECT_EQ(*submit("r1", SmallJob()), job);
    EXPECT_EQ(**cluster->FindSubmitted("r1", SmallJob()), job);
    EXPECT_EQ(*cluster->FindSubmitted("r3", SmallJob()), std::nullopt);
    v1::Job other = SmallJob();
    other.set_seed(8);
    for (const absl::Status& status : {submit("r1", other).status(), cluster->FindSubmitted("r1", other).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(status.message(), HasSubstr(job));
    }
    EXPECT_EQ(cluster->List(100).size(), 4u);
    EXPECT_EQ(AllEvents(cluster.coordinator(), job).size(), 1u);
    cluster.Restart();
  }
  EXPECT_FALSE(cluster->FindSubmitted(std::string(101, 'r'), SmallJob()).ok());
}

TEST(Coordinator, SubmitSaysAllThatIsWrongAndKeepsNothing) {
  TestingCluster cluster;
  v1::Job job = SmallJob();
  job.set_batch(0);
  job.set_precision("fp8");
  const absl::Status refused = cluster->Submit(cluster->NewJobId(), "", job, {"model.keras", "x", 8, kTestDigest}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  for (const char* part : {"batch: ", "\nprecision: ", "\nmodel: tiny.keras was announced with 7 bytes"}) {
    EXPECT_THAT(refused.message(), HasSubstr(part));
  }
  EXPECT_TRUE(cluster->List(10).empty());
}

TEST(Coordinator, IdsAreNeverGivenTwice) {
  TestingCluster cluster;
  std::set<std::string> ids;
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(ids.insert(cluster.Submit(SmallJob())).second);
  cluster.Restart();
  cluster.clock().Advance(-absl::Hours(1));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(ids.insert(cluster.Submit(SmallJob())).second);
  EXPECT_EQ(cluster->List(100).size(), 10u);
  EXPECT_EQ(cluster->List(3).front().job_id(), *ids.rbegin()) << "newest first";
}

TEST(Coordinator, AnOlderGenerationIsRefusedEverywhere) {
  Training t;
  t.worker.TrainerEnds(t.job, 1, 1, 0);
  ASSERT_EQ(t.cluster.Status(t.job).generation(), 2u);
  for (const uint64_t generation : {0, 1, 3}) {
    const auto refused = absl::StatusCode::kFailedPrecondition;
    EXPECT_EQ(t.cluster.Progress(t.job, generation, 1, 1).code(), refused);
    EXPECT_EQ(t.cluster.End(t.job, generation, v1::DONE).code(), refused);
    EXPECT_EQ(t.cluster->MayStore(t.job, generation).code(), refused);
    EXPECT_EQ(t.cluster->StoreArtifact(t.job, generation, {"x", "x.1", 1, "1"}).status().code(), refused);
    EXPECT_EQ(Meet(t.cluster, t.job, generation, 0, "a").status().code(), refused);
  }
  EXPECT_THAT(t.cluster.Progress(t.job, 1, 1, 1).message(), HasSubstr("its newest generation is 2"));
  EXPECT_TRUE(t.cluster.Progress(t.job, 2, 1, 1).ok());
}

TEST(Coordinator, TheSameStepAgainIsPassedOverAndAnotherHashFailsTheJob) {
  Training t;
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 2).ok());
  const size_t events = AllEvents(t.cluster.coordinator(), t.job).size();
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 2).ok());
  EXPECT_EQ(AllEvents(t.cluster.coordinator(), t.job).size(), events);
  EXPECT_EQ(t.cluster.Progress(t.job, 1, 5, 5).code(), absl::StatusCode::kInvalidArgument);
  v1::ProgressReport report;
  report.set_job_id(t.job);
  report.set_generation(1);
  *report.add_steps() = StepOf(2, 1);
  report.mutable_steps(0)->set_state_hash(kTestDigest);
  const auto refused = t.cluster->ReportProgress(report);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(t.cluster.State(t.job), v1::FAILED);
  EXPECT_THAT(t.cluster.Status(t.job).reason(), HasSubstr("same bits violated at step 2"));
  EXPECT_EQ(t.worker.Orders().trainers_size(), 0);
}

TEST(Coordinator, APassIsToldAsItComes) {
  Training t;
  v1::ProgressReport report;
  report.set_job_id(t.job);
  report.set_generation(1);
  for (const uint64_t batch : {3u, 8u}) {
    report.mutable_pass()->set_batch(batch);
    report.mutable_pass()->set_batches(8);
    ASSERT_TRUE(t.cluster->ReportProgress(report).ok());
    EXPECT_EQ(AllEvents(t.cluster.coordinator(), t.job).back().pass().batch(), batch);
  }
  EXPECT_FALSE(t.cluster.Status(t.job).has_latest()) << "no step was taken";
}

TEST(Coordinator, OfManyEpochsTheNewestAreInMemoryAndAllAreWatched) {
  Training t;
  for (uint32_t epoch = 1; epoch <= 50; ++epoch) {
    v1::ProgressReport report;
    report.set_job_id(t.job);
    report.set_generation(1);
    *report.add_steps() = StepOf(epoch, 1);
    report.add_epochs()->set_epoch(epoch);
    report.mutable_epochs(0)->set_step(epoch);
    ASSERT_TRUE(t.cluster->ReportProgress(report).ok());
  }
  for (const bool restarted : {false, true}) {
    if (restarted) t.cluster.Restart();
    const v1::JobStatus status = t.cluster.Status(t.job);
    EXPECT_EQ(static_cast<size_t>(status.epochs_size()), kEpochsKept);
    EXPECT_EQ(status.epochs().rbegin()->epoch(), 50u);
    size_t watched = 0;
    for (const v1::Event& event : AllEvents(t.cluster.coordinator(), t.job)) watched += event.has_epoch() ? 1 : 0;
    EXPECT_EQ(watched, 50u);
  }
}

TEST(Coordinator, NotesAreToldOnceAndAreBounded) {
  Training t;
  v1::ProgressReport report;
  report.set_job_id(t.job);
  report.set_generation(1);
  report.add_notes("slow disk");
  report.add_notes("slow disk");
  const size_t before = AllEvents(t.cluster.coordinator(), t.job).size();
  ASSERT_TRUE(t.cluster->ReportProgress(report).ok());
  ASSERT_TRUE(t.cluster->ReportProgress(report).ok());
  EXPECT_EQ(AllEvents(t.cluster.coordinator(), t.job).size(), before + 1);
  for (int i = 0; i < 3'000; ++i) report.add_notes(absl::StrCat("note ", i));
  ASSERT_TRUE(t.cluster->ReportProgress(report).ok());
  const auto events = AllEvents(t.cluster.coordinator(), t.job);
  EXPECT_LE(events.size(), before + 1'000);
  EXPECT_EQ(events.back().note(), "further notes of this job are dropped");
}

TEST(Coordinator, DeathsWithoutANewStepFailTheJobAndProgressForgivesThem) {
  v1::Job lonely = SmallJob();
  lonely.mutable_replicas()->set_max(1);
  Training t(lonely);
  uint64_t generation = 1;
  const auto die = [&] {
    t.worker.TrainerEnds(t.job, 0, 0, 9);
    t.cluster.Pass(absl::Seconds(5));
    for (int i = 0; i < 2; ++i) t.worker.Obey();
    ++generation;
  };
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 1).ok());
  for (int i = 0; i < 5; ++i) die();
  ASSERT_EQ(t.cluster.State(t.job), v1::RUNNING);
  EXPECT_EQ(t.cluster.Status(t.job).generation(), generation);
  ASSERT_TRUE(t.cluster.Progress(t.job, generation, 1, 2).ok());
  for (int i = 0; i < 5; ++i) die();
  ASSERT_EQ(t.cluster.State(t.job), v1::RUNNING);
  die();
  EXPECT_EQ(t.cluster.State(t.job), v1::FAILED);
  EXPECT_THAT(t.cluster.Status(t.job).reason(), HasSubstr("6 generations broke off in step 3, and none got further"));
  EXPECT_THAT(t.cluster.Status(t.job).reason(), HasSubstr("the trainer of rank 0 on worker w1 was killed by signal 9"));
}

TEST(Coordinator, ARestartWaitsForItsPauseAndForWhatStillRuns) {
  v1::Job job = SmallJob();
  job.set_kind(v1::Job::EVALUATE);
  job.clear_steps();
  job.clear_epochs();
  Training t(job);
  t.worker.report().mutable_trainers(1)->set_ended(true);
  t.worker.report().mutable_trainers(1)->set_exit_code(1);
  ASSERT_TRUE(t.worker.Report().ok());
  t.cluster.Pass(absl::Seconds(5));
  EXPECT_EQ(t.cluster.State(t.job), v1::QUEUED) << "rank 0 of the old generation still runs";
  t.worker.Obey();
  EXPECT_EQ(t.cluster.State(t.job), v1::RUNNING);
  EXPECT_EQ(t.cluster.Status(t.job).generation(), 2u);
}

TEST(Coordinator, RanksOfDifferentKindsFailTheJobByName) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  const std::string job = cluster.Submit(SmallJob());
  worker.Obey();
  ASSERT_TRUE(cluster.Plan(job).ok());
  worker.Obey();
  ASSERT_TRUE(Meet(cluster, job, 1, 0, "a", "AVX512").ok());
  EXPECT_EQ(Meet(cluster, job, 1, 1, "b", "AVX2").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(cluster.State(job), v1::FAILED);
  EXPECT_THAT(cluster.Status(job).reason(), HasSubstr("cpu_capability is \"AVX512\" on rank 0"));
}

TEST(Coordinator, ARankThatDoesNotComeIsGivenUp) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  const std::string job = cluster.Submit(SmallJob());
  worker.Obey();
  ASSERT_TRUE(cluster.Plan(job).ok());
  worker.Obey();
  ASSERT_TRUE(Meet(cluster, job, 1, 0, "a").ok());
  for (int minute = 0; minute < 6; ++minute) {
    for (int i = 0; i < 12; ++i) {
      cluster.Pass(absl::Seconds(5));
      ASSERT_TRUE(worker.Report().ok());
    }
  }
  EXPECT_EQ(cluster.State(job), v1::RUNNING);
  EXPECT_EQ(cluster.Status(job).replicas_size(), 1);
  EXPECT_THAT(cluster.Status(job).reason(), HasSubstr("1 of 2 replicas, from live state: rank 1 did not come to the rendezvous within 5m"));
}

TEST(Coordinator, ACancelledJobEndsAtAStepBoundaryOrAtTheLatestAfterAWhile) {
  Training t;
  EXPECT_EQ(t.cluster->Cancel(t.job)->state(), v1::RUNNING);
  EXPECT_TRUE(t.worker.Orders().trainers(0).cancel());
  ASSERT_TRUE(t.cluster.End(t.job, 1, v1::CANCELLED).ok());
  EXPECT_EQ(t.cluster.State(t.job), v1::CANCELLED);
  EXPECT_EQ(t.cluster->Cancel(t.job)->state(), v1::CANCELLED) << "ended already";

  Training late;
  ASSERT_TRUE(late.cluster->Cancel(late.job).ok());
  late.cluster.Restart();
  ASSERT_TRUE(late.worker.Attend().ok());
  EXPECT_TRUE(late.worker.Orders().trainers(0).cancel()) << "known after a restart";
  for (int i = 0; i < 25; ++i) {
    late.cluster.Pass(absl::Seconds(5));
    ASSERT_TRUE(late.worker.Report().ok());
  }
  EXPECT_EQ(late.cluster.State(late.job), v1::CANCELLED);
  EXPECT_EQ(late.worker.Orders().trainers_size(), 0);
}

TEST(Coordinator, JobsWaitInTheirOrder) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1", 1);
  ASSERT_TRUE(worker.Attend().ok());
  const std::string first = cluster.Submit(OneReplica()), second = cluster.Submit(OneReplica());
  worker.Obey();
  ASSERT_TRUE(cluster.Plan(first).ok());
  EXPECT_EQ(cluster.State(first), v1::RUNNING);
  EXPECT_EQ(cluster.Status(second).reason(), "waiting to plan: all workers' slots are in use");
  worker.Obey();
  ASSERT_TRUE(cluster.End(first, 1, v1::DONE).ok());
  worker.Obey();
  EXPECT_EQ(cluster.State(second), v1::PLANNING);
}

}  // namespace
}  // namespace lockstep
