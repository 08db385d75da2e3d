// Who is in a running job: losses, joiners, scale.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/coordinator.h"
#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;

v1::Job WithReplicas(uint32_t min, uint32_t max) {
  v1::Job job = SmallJob();
  job.mutable_replicas()->set_min(min);
  job.mutable_replicas()->set_max(max);
  return job;
}

// A job that trains on as many replicas as it may, all of them on one worker; they have met.
struct Members {
  TestingCluster cluster;
  FakeWorker worker;
  std::string job;

  explicit Members(const v1::Job& wanted, uint32_t slots = 4) : worker(cluster, "w1", slots) {
    EXPECT_TRUE(worker.Attend().ok());
    job = cluster.Submit(wanted);
    worker.Obey();
    EXPECT_TRUE(cluster.Plan(job).ok());
    worker.Obey();
    EXPECT_EQ(cluster.State(job), v1::RUNNING);
    Meet();
  }
  v1::JobStatus status() const { return cluster.Status(job); }
  uint64_t generation() const { return status().generation(); }
  int replicas() const { return status().replicas_size(); }
  int joining() const { return status().joining_size(); }

  void Meet() {
    for (int rank = 0; rank < replicas(); ++rank) {
      v1::RendezvousRequest request;
      request.set_job_id(job);
      request.set_generation(generation());
      request.set_rank(static_cast<uint32_t>(rank));
      EXPECT_TRUE(cluster->Rendezvous(request, absl::ZeroDuration()).ok());
    }
  }
  // Of the process that was started by this order; `generation`: the newest that it was of.
  absl::StatusOr<std::optional<v1::TrainerOrder>> Ask(uint64_t generation, uint64_t process_generation, uint32_t process_rank,
                                                      std::vector<uint32_t> silent = {}, bool finished = false) {
    v1::RegroupRequest request;
    request.set_job_id(job);
    request.set_generation(generation);
    request.set_process_generation(process_generation);
    request.set_process_rank(process_rank);
    request.set_finished(finished);
    request.set_reason("a test");
    request.mutable_silent_ranks()->Assign(silent.begin(), silent.end());
    return cluster->Regroup(request, absl::ZeroDuration());
  }
  // Lets time pass while the worker reports.
  void Pass(absl::Duration time) {
    for (absl::Duration passed; passed < time; passed += absl::Seconds(1)) {
      cluster.Pass(absl::Seconds(1));
      ASSERT_TRUE(worker.Report().ok());
    }
  }
  // What the worker is told to run beside the members.
  std::vector<v1::TrainerOrder> OrderedJoiners() const {
    std::vector<v1::TrainerOrder> joiners;
    const v1::WorkerOrders orders = worker.Orders();
    for (const v1::TrainerOrder& order : orders.trainers()) {
      if (order.joins() && order.generation() > 1) joiners.push_back(order);
    }
    return joiners;
  }
};

TEST(Members, SurvivorsOfAKilledTrainerGoOnAndItIsStartedAgain) {
  for (uint32_t victim = 0; victim < 2; ++victim) {
    Members t(WithReplicas(1, 2));
    ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 1).ok());
    EXPECT_FALSE((*t.Ask(1, 1, 1 - victim)).has_value()) << "nobody is known to be dead";
    t.worker.TrainerEnds(t.job, victim, 0, 9);
    EXPECT_EQ(t.status().state(), v1::RUNNING);
    EXPECT_EQ(t.generation(), 2u);
    ASSERT_EQ(t.replicas(), 1);
    EXPECT_THAT(t.status().reason(),
                HasSubstr(absl::StrCat("going on with 1 of 2 replicas, from live state: the trainer of rank ", victim)));
    EXPECT_EQ(t.joining(), 1);
    const v1::WorkerOrders orders = t.worker.Orders();
    ASSERT_EQ(orders.trainers_size(), 2);
    EXPECT_EQ(orders.trainers(0).generation(), 1u) << "to the worker the process is what it was";
    EXPECT_EQ(orders.trainers(0).rank(), 1 - victim);
    EXPECT_EQ(orders.trainers(0).newest_generation(), 2u);
    EXPECT_TRUE(orders.trainers(1).joins());
    EXPECT_EQ(orders.trainers(1).generation(), 3u) << "a number of its own";
    t.cluster.Restart();
    ASSERT_TRUE(t.worker.Attend().ok());
    const auto order = t.Ask(1, 1, 1 - victim);
    ASSERT_TRUE(order.ok() && order->has_value()) << order.status();
    EXPECT_EQ((*order)->generation(), 2u);
    EXPECT_EQ((*order)->rank(), 0u);
    ASSERT_EQ((*order)->members_size(), 1);
    EXPECT_EQ((*order)->members(0).virtual_replica_count(), 4u);
    EXPECT_FALSE((*order)->generation_secret().empty());
    EXPECT_EQ(t.Ask(1, 1, victim).status().code(), kRefused);
    EXPECT_EQ(t.Ask(0, 3, 0).status().code(), kRefused) << "a joiner of before the restart";
    EXPECT_EQ(t.cluster.Progress(t.job, 1, 2, 2).code(), kRefused);
    ASSERT_TRUE(t.cluster.Progress(t.job, 2, 1, 3).ok());
    ASSERT_TRUE(t.cluster.End(t.job, 2, v1::DONE).ok());
  }
}

TEST(Members, AJoinerThatIsReadyIsInTheNextGenerationAndNeverFirst) {
  Members t(WithReplicas(1, 2));
  t.worker.TrainerEnds(t.job, 0, 0, 9);
  ASSERT_EQ(t.OrderedJoiners().size(), 1u);
  t.worker.Obey();
  ASSERT_TRUE(t.Ask(1, 1, 1).ok());
  ASSERT_TRUE(t.cluster.Progress(t.job, 2, 1, 1).ok());
  const auto order = t.Ask(3, 3, 0);
  ASSERT_TRUE(order.ok() && order->has_value()) << order.status();
  EXPECT_EQ(t.generation(), 4u);
  EXPECT_EQ((*order)->rank(), 1u);
  EXPECT_FALSE((*order)->joins());
  EXPECT_EQ((*order)->members_size(), 2);
  EXPECT_THAT(t.status().reason(), HasSubstr("going on with 2 replicas, 1 of them new, from live state: 1 replica joined"));
  EXPECT_EQ(t.joining(), 0);
  EXPECT_EQ((*t.Ask(2, 1, 1))->rank(), 0u);
  const v1::WorkerOrders orders = t.worker.Orders();
  for (const v1::TrainerOrder& one : orders.trainers()) EXPECT_EQ(one.newest_generation(), 4u);
  t.Meet();
  ASSERT_TRUE(t.cluster.Progress(t.job, 4, 1, 3).ok());
}

TEST(Members, AJoinerThatDiesIsStartedAgainLaterAndLater) {
  Members t(WithReplicas(1, 2));
  t.worker.TrainerEnds(t.job, 1, 0, 9);
  absl::Duration pause = absl::Seconds(1);
  for (int failures = 0; failures < 5; ++failures) {
    ASSERT_EQ(t.joining(), 1);
    t.worker.Obey();
    t.worker.TrainerEnds(t.job, 0, 1, 0, t.OrderedJoiners().back().generation());
    EXPECT_EQ(t.joining(), 0);
    t.Pass(pause - absl::Seconds(1));
    EXPECT_EQ(t.joining(), 0) << failures;
    t.Pass(absl::Seconds(2));
    pause = 2 * pause + absl::Seconds(1);
  }
  EXPECT_EQ(t.generation(), 2u) << "those that train are not disturbed";
}

TEST(Members, BelowTheFewestTheyWaitWithTheirStateAlsoOverARestart) {
  Members t(WithReplicas(2, 2), 2);
  t.worker.TrainerEnds(t.job, 1, 0, 9);
  EXPECT_EQ(t.status().state(), v1::RUNNING);
  EXPECT_THAT(t.status().reason(), HasSubstr("waiting: 2 replicas wanted at least, 1 left with the live state: the trainer of rank 1"));
  EXPECT_FALSE((*t.Ask(1, 1, 0)).has_value());
  t.Pass(absl::Minutes(10));
  EXPECT_FALSE((*t.Ask(1, 1, 0)).has_value()) << "it waits as long as it takes";
  t.cluster.Restart();
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_FALSE((*t.Ask(1, 1, 0)).has_value());
  t.Pass(absl::Seconds(2));
  ASSERT_EQ(t.joining(), 1);
  const uint64_t joiner = t.OrderedJoiners().back().generation();
  t.worker.Obey();
  ASSERT_TRUE((*t.Ask(joiner, joiner, 0)).has_value());
  const auto order = t.Ask(1, 1, 0);
  ASSERT_TRUE(order->has_value());
  EXPECT_EQ((*order)->rank(), 0u);
  EXPECT_EQ((*order)->members_size(), 2);
}

TEST(Members, ADeathBelowTheFewestDoesNotKeepAJobThatIsDoneFromItsEnd) {
  Members t(WithReplicas(2, 2), 2);
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 3).ok());
  t.worker.TrainerEnds(t.job, 1, 0, 9);
  ASSERT_TRUE((*t.Ask(1, 1, 0, {}, true)).has_value());
  EXPECT_TRUE(t.cluster.End(t.job, 2, v1::DONE).ok());
}

TEST(Members, OneThatWaitsGoesOnWhenItIsScaledToWhatIsLeft) {
  Members t(WithReplicas(2, 2), 2);
  t.worker.TrainerEnds(t.job, 1, 0, 9);
  ASSERT_FALSE((*t.Ask(1, 1, 0)).has_value());
  v1::Replicas one;
  one.set_min(1);
  one.set_max(1);
  ASSERT_TRUE(t.cluster->Scale(t.job, one).ok());
  EXPECT_EQ((*t.Ask(1, 1, 0))->members_size(), 1);
}

TEST(Members, LostOneAfterTheOtherAllStartAgain) {
  Members t(WithReplicas(1, 2));
  t.worker.TrainerEnds(t.job, 0, 0, 9);
  ASSERT_EQ(t.generation(), 2u);
  t.worker.TrainerEnds(t.job, 1, 0, 9);
  EXPECT_EQ(t.joining(), 0);
  t.Pass(absl::Seconds(3));
  t.worker.Obey();
  EXPECT_EQ(t.replicas(), 2);
  EXPECT_EQ(t.worker.Orders().trainers(0).generation(), t.generation()) << "processes of its own";
}

TEST(Members, ACollectiveThatBreaksWithoutADeathIsTriedAgainAndThenGoesOnWithoutWhomTheOthersCannotHear) {
  Members t(WithReplicas(1, 3));
  ASSERT_FALSE((*t.Ask(1, 1, 0, {2})).has_value());
  ASSERT_FALSE((*t.Ask(1, 1, 1, {2})).has_value());
  t.Pass(absl::Seconds(20));
  EXPECT_EQ(t.generation(), 1u) << "rank 2 may still compute";
  ASSERT_FALSE((*t.Ask(1, 1, 2, {0})).has_value());
  t.Pass(absl::Seconds(4));
  ASSERT_EQ(t.generation(), 2u);
  EXPECT_EQ(t.replicas(), 3);
  EXPECT_THAT(t.status().reason(), HasSubstr("3 of 3 replicas, from live state: the collective broke though all trainers live: a test"));
  t.Meet();
  ASSERT_FALSE((*t.Ask(2, 1, 0, {2})).has_value());
  ASSERT_FALSE((*t.Ask(2, 1, 1, {2})).has_value());
  ASSERT_FALSE((*t.Ask(2, 1, 2, {0})).has_value());
  t.Pass(absl::Seconds(4));
  EXPECT_EQ(t.replicas(), 2);
  EXPECT_THAT(t.status().reason(), HasSubstr("rank 2 cannot be reached"));
  EXPECT_EQ(t.Ask(2, 1, 2).status().code(), kRefused);
  EXPECT_EQ((*t.Ask(2, 1, 0))->members_size(), 2);
}

TEST(Members, AWorkerThatCannotBeReachedGoesWholeAndIsAvoidedForAWhile) {
  TestingCluster cluster;
  FakeWorker here(cluster, "w1", 2), there(cluster, "w2", 2);
  ASSERT_TRUE(here.Attend().ok());
  ASSERT_TRUE(there.Attend().ok());
  const std::string job = cluster.Submit(WithReplicas(1, 4));
  for (FakeWorker* worker : {&here, &there}) worker->Obey();
  ASSERT_TRUE(cluster.Plan(job).ok());
  for (FakeWorker* worker : {&here, &there}) worker->Obey();
  const auto pass = [&](absl::Duration time) {
    for (absl::Duration passed; passed < time; passed += absl::Seconds(1)) {
      cluster.Pass(absl::Seconds(1));
      for (FakeWorker* worker : {&here, &there}) ASSERT_TRUE(worker->Report().ok());
    }
  };
  const auto ask = [&](uint64_t generation, uint32_t process_rank, std::vector<uint32_t> silent) {
    v1::RegroupRequest request;
    request.set_job_id(job);
    request.set_generation(generation);
    request.set_process_generation(1);
    request.set_process_rank(process_rank);
    request.set_reason("a test");
    request.mutable_silent_ranks()->Assign(silent.begin(), silent.end());
    return cluster->Regroup(request, absl::ZeroDuration()).status();
  };
  const v1::JobStatus before = cluster.Status(job);
  ASSERT_EQ(before.replicas_size(), 4);
  const std::string far = before.replicas(3).worker_id();
  std::vector<std::vector<uint32_t>> silent;
  for (const auto& replica : before.replicas()) {
    const bool is_far = replica.worker_id() == far;
    std::vector<uint32_t>& ranks = silent.emplace_back();
    for (uint32_t rank = 0; rank < 4; ++rank) {
      if ((before.replicas(static_cast<int>(rank)).worker_id() == far) != is_far) ranks.push_back(rank);
    }
    if (is_far) ranks.resize(1);  // it stops at the first that it cannot connect to
  }
  for (const uint64_t generation : {1, 2}) {
    ASSERT_EQ(cluster.Status(job).generation(), generation);
    for (uint32_t rank = 0; rank < 4; ++rank) ASSERT_TRUE(ask(generation, rank, silent[rank]).ok());
    pass(absl::Seconds(4));
  }
  EXPECT_EQ(cluster.Status(job).replicas_size(), 2);
  EXPECT_THAT(cluster.Status(job).reason(), HasSubstr("cannot be reached"));
  const v1::JobStatus after = cluster.Status(job);
  for (const auto& replica : after.replicas()) EXPECT_NE(replica.worker_id(), far);
  for (FakeWorker* worker : {&here, &there}) worker->Obey();
  ASSERT_TRUE(cluster.Progress(job, 3, 1, 1).ok());
  pass(absl::Seconds(12));
  EXPECT_EQ(cluster.Status(job).joining_size(), 0) << "not from there yet";
  pass(absl::Seconds(5));
  EXPECT_EQ(cluster.Status(job).joining_size(), 2);
}

TEST(Members, OneThatDoesNotLeaveABrokenGenerationIsGivenUp) {
  Members t(WithReplicas(1, 2));
  ASSERT_FALSE((*t.Ask(1, 1, 0)).has_value());
  t.Pass(t.cluster.options().rendezvous_timeout - absl::Seconds(2));
  EXPECT_EQ(t.generation(), 1u);
  t.Pass(absl::Seconds(4));
  EXPECT_EQ(t.replicas(), 1);
  EXPECT_THAT(t.status().reason(), HasSubstr("rank 1 did not leave a generation that broke within 5m"));
}

TEST(Members, AFinishedOneThatWaitsForTheEndBreaksNothing) {
  Members t(WithReplicas(1, 2));
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 3).ok());
  ASSERT_FALSE((*t.Ask(1, 1, 1, {}, true)).has_value());
  t.Pass(absl::Minutes(10));
  EXPECT_EQ(t.generation(), 1u);
  t.worker.TrainerEnds(t.job, 0, 0, 9);
  const auto order = t.Ask(1, 1, 1, {}, true);
  ASSERT_TRUE(order->has_value());
  EXPECT_EQ((*order)->rank(), 0u) << "it stores the results now";
  EXPECT_EQ(t.joining(), 0) << "nobody is needed any more";
  ASSERT_TRUE(t.cluster.End(t.job, 2, v1::DONE).ok());
  EXPECT_EQ(t.Ask(2, 1, 1, {}, true).status().code(), kRefused);
}

TEST(Members, ScaledDownTheLastRanksLeaveAtTheBoundaryAndScaledUpJoinersCome) {
  Members t(WithReplicas(1, 4));
  ASSERT_EQ(t.replicas(), 4);
  v1::Replicas two;
  two.set_min(1);
  two.set_max(2);
  ASSERT_TRUE(t.cluster->Scale(t.job, two).ok());
  EXPECT_EQ(t.generation(), 2u);
  EXPECT_EQ(t.replicas(), 2);
  EXPECT_EQ(t.worker.Orders().trainers_size(), 4) << "they run on to their step boundary";
  EXPECT_EQ(t.Ask(1, 1, 3).status().code(), kRefused);
  EXPECT_EQ((*t.Ask(1, 1, 1))->members_size(), 2);
  t.worker.TrainerEnds(t.job, 3, 0, 0);
  EXPECT_EQ(t.worker.Orders().trainers_size(), 3);
  t.worker.TrainerEnds(t.job, 2, 0, 0);
  t.Meet();
  t.Pass(absl::Seconds(10));
  EXPECT_EQ(t.generation(), 2u);
  t.cluster.Restart();
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_EQ(t.status().resolved().replicas().max(), 2u) << "known after a restart";
  t.Pass(absl::Seconds(10));
  EXPECT_EQ(t.joining(), 0);
  two.set_max(4);
  ASSERT_TRUE(t.cluster->Scale(t.job, two).ok());
  EXPECT_EQ(t.joining(), 2);
  two.set_min(9);
  two.set_max(9);
  EXPECT_THAT(t.cluster->Scale(t.job, two).status().message(), HasSubstr("more than the 4 virtual replicas"));
  two.set_max(3);
  EXPECT_EQ(t.cluster->Scale(t.job, two).status().code(), absl::StatusCode::kInvalidArgument);
}

absl::Status StoreCheckpoint(const Members& t, uint64_t step) {
  const std::string name = absl::StrFormat("checkpoint-%09d.safetensors", step);
  return t.cluster->StoreArtifact(t.job, t.generation(), {name, name + ".x", 10, kTestDigest}).status();
}

TEST(Members, AllLostTheyStartFromTheNewestCheckpointOfThoseThatAreKept) {
  v1::Job job = WithReplicas(1, 2);
  job.mutable_checkpoint()->set_keep(2);
  Members t(job);
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 2).ok());
  for (const uint64_t step : {1, 2}) ASSERT_TRUE(StoreCheckpoint(t, step).ok());
  const std::string third = "checkpoint-000000003.safetensors";
  const auto replaced = t.cluster->StoreArtifact(t.job, 1, {third, "third", 10, kTestDigest});
  ASSERT_TRUE(replaced.ok());
  ASSERT_EQ(replaced->size(), 1u);
  EXPECT_EQ(replaced->front().name, "checkpoint-000000001.safetensors") << "its file may go";
  t.cluster.Restart();
  ASSERT_TRUE(t.worker.Attend().ok());
  t.worker.report().mutable_trainers(0)->set_ended(true);
  t.worker.report().mutable_trainers(0)->set_signal(9);
  t.worker.TrainerEnds(t.job, 1, 0, 9);
  EXPECT_THAT(AllEvents(t.cluster.coordinator(), t.job).back().state().reason(), HasSubstr("running on 2 replicas"));
  const v1::WorkerOrders orders = t.worker.Orders();
  ASSERT_EQ(orders.trainers_size(), 2);
  EXPECT_FALSE(orders.trainers(0).joins());
  EXPECT_THAT(orders.trainers(0).checkpoints(), testing::ElementsAre(third, "checkpoint-000000002.safetensors"));
}

TEST(Members, CheckpointsInTheJobsOwnFolderAreKnownByTheirPath) {
  const std::string name = "checkpoint-000000001.safetensors";
  Members without(WithReplicas(1, 2));
  ASSERT_TRUE(without.cluster.Progress(without.job, 1, 1, 1).ok());
  EXPECT_EQ(without.cluster->StoreArtifact(without.job, 1, {name, "", 10, kTestDigest}).status().code(),
            absl::StatusCode::kInvalidArgument);
  v1::Job job = WithReplicas(1, 2);
  job.mutable_checkpoint()->set_folder("/shared");
  Members t(job);
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 1).ok());
  EXPECT_EQ(t.cluster->StoreArtifact(t.job, 1, {"trained.keras", "", 10, kTestDigest}).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(t.cluster->StoreArtifact(t.job, 1, {name, "", 10, kTestDigest}).ok());
  t.cluster.Restart();
  EXPECT_EQ(t.cluster->FindArtifact(t.job, name)->file, absl::StrCat("/shared/", t.job, "/", name));
}

TEST(Members, APausedJobEndsAtTheBoundaryAndGoesOnWhenItIsResumed) {
  Members t(WithReplicas(1, 2));
  ASSERT_TRUE(t.cluster.Progress(t.job, 1, 1, 1).ok());
  EXPECT_EQ(t.cluster->Pause(t.job)->state(), v1::RUNNING);
  EXPECT_TRUE(t.worker.Orders().trainers(0).pause());
  t.cluster.Restart();
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_TRUE(t.worker.Orders().trainers(0).pause()) << "known after a restart";
  ASSERT_TRUE(StoreCheckpoint(t, 1).ok());
  ASSERT_TRUE(t.cluster.End(t.job, 1, v1::PAUSED).ok());
  EXPECT_EQ(t.status().state(), v1::PAUSED);
  EXPECT_EQ(t.worker.Orders().trainers_size(), 0) << "its slots are free";
  t.worker.Obey();
  t.Pass(absl::Seconds(30));
  t.cluster.Restart();
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_EQ(t.status().state(), v1::PAUSED);
  EXPECT_EQ(t.cluster->Resume(t.job)->state(), v1::RUNNING);
  EXPECT_FALSE(t.worker.Orders().trainers(0).pause());
  EXPECT_EQ(t.worker.Orders().trainers(0).checkpoints_size(), 1);
  t.Meet();
  ASSERT_TRUE(t.cluster.Progress(t.job, t.generation(), 2, 3).ok());
  ASSERT_TRUE(t.cluster.End(t.job, t.generation(), v1::DONE).ok());
  EXPECT_EQ(t.cluster->Pause(t.job).status().code(), kRefused);
  EXPECT_EQ(t.cluster->Resume(t.job).status().code(), kRefused);
}

TEST(Members, WhoWasToJoinAPausedJobIsForgotten) {
  Members t(WithReplicas(1, 2), 2);
  t.worker.TrainerEnds(t.job, 1, 0, 9);
  ASSERT_EQ(t.joining(), 1);
  ASSERT_TRUE(t.cluster->Pause(t.job).ok());
  ASSERT_TRUE(t.cluster.End(t.job, 2, v1::PAUSED).ok());
  t.worker.Obey();
  ASSERT_TRUE(t.cluster->Resume(t.job).ok());
  EXPECT_EQ(t.joining(), 0);
  EXPECT_EQ(t.worker.Orders().trainers_size(), 2);
}

TEST(Members, AJobIsPausedInWhateverStateItIs) {
  TestingCluster cluster;
  const std::string job = cluster.Submit(SmallJob());
  EXPECT_EQ(cluster->Pause(job)->state(), v1::SUBMITTED);
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  worker.Obey();
  ASSERT_TRUE(cluster.Plan(job).ok());
  EXPECT_EQ(cluster.State(job), v1::PAUSED);
  EXPECT_EQ(cluster->Resume(job)->state(), v1::RUNNING);
  EXPECT_EQ(cluster->Pause(job)->state(), v1::RUNNING);
  EXPECT_EQ(cluster->Resume(job)->state(), v1::RUNNING) << "before it came to the boundary";
  EXPECT_FALSE(worker.Orders().trainers(0).pause());
  ASSERT_TRUE(cluster->Pause(job).ok());
  EXPECT_EQ(cluster->Cancel(job)->state(), v1::CANCELLED) << "its ranks have not met";
  v1::Job never = SmallJob();
  never.mutable_checkpoint()->set_never(true);
  EXPECT_EQ(cluster->Pause(cluster.Submit(never)).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Members, WhatOthersWaitForIsNotTakenByAJobThatGrows) {
  Members t(WithReplicas(1, 3), 3);
  const std::string second = t.cluster.Submit(WithReplicas(1, 1));
  EXPECT_EQ(t.cluster.State(second), v1::SUBMITTED);
  t.worker.TrainerEnds(t.job, 2, 0, 9);
  EXPECT_EQ(t.joining(), 0);
  EXPECT_EQ(t.cluster.State(second), v1::PLANNING);
}

}  // namespace
}  // namespace lockstep
