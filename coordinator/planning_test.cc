// Jobs that are only planned, and what a planned job says about its memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

v1::Job PlanOnly() {
  v1::Job job = SmallJob();
  job.set_plan_only(true);
  return job;
}

v1::PlanReport WithPicture(const std::string& job_id, const v1::Job& job) {
  v1::PlanReport plan = PlanOf(job_id, job);
  v1::MemoryProfile& profile = *plan.mutable_profile();
  (*profile.mutable_bytes_by_category())["activations"] = 60 << 20;
  profile.set_at_peak("backward conv1");
  profile.set_resident_bytes(110 << 20);
  profile.add_remedies()->set_name("threads");
  profile.mutable_remedies(0)->set_resident_bytes(100 << 20);
  for (const uint64_t bytes : {1u, 3u, 2u}) profile.add_timeline_bytes(bytes), profile.add_timeline_places(0);
  profile.add_places("forward conv1");
  return plan;
}

// A cluster with one worker that plans the job.
struct Planning {
  TestingCluster cluster;
  FakeWorker worker;
  std::string job;

  explicit Planning(const v1::Job& wanted, uint64_t memory_bytes = uint64_t{8} << 30) : worker(cluster, "w1", 2, memory_bytes) {
    EXPECT_TRUE(worker.Attend().ok());
    job = cluster.Submit(wanted);
    worker.Obey();
    EXPECT_EQ(cluster.State(job), v1::PLANNING);
  }
  v1::JobStatus Report(const v1::PlanReport& plan) {
    EXPECT_TRUE(cluster->ReportPlan(plan).ok());
    worker.Obey();
    return cluster.Status(job);
  }
};

TEST(Planning, AJobThatIsOnlyPlannedIsDoneWithItsPlanAndStaysSo) {
  for (const v1::Job::Kind kind : {v1::Job::FIT, v1::Job::EVALUATE, v1::Job::PREDICT}) {
    v1::Job job = PlanOnly();
    job.set_kind(kind);
    if (kind != v1::Job::FIT) job.clear_length();
    Planning t(job);
    const v1::JobStatus status = t.Report(WithPicture(t.job, job));
    EXPECT_EQ(status.state(), v1::DONE);
    EXPECT_EQ(status.reason(), "planned");
    EXPECT_EQ(status.generation(), 0u) << "nothing trained";
    EXPECT_EQ(t.worker.Orders().trainers_size(), 0);
    EXPECT_EQ(status.profile().at_peak(), "backward conv1");
    EXPECT_EQ(status.profile().timeline_bytes_size(), 3);
    EXPECT_EQ(t.cluster->List(1).front().profile().timeline_bytes_size(), 0) << "a list stays small";
    EXPECT_EQ(t.cluster->List(1).front().profile().at_peak(), "backward conv1");
    EXPECT_EQ(t.cluster->TakeSnapshot().jobs.front().status.profile().places_size(), 0);
    const std::string before = DurableState(t.cluster.coordinator());
    t.cluster.Restart();
    ASSERT_TRUE(t.worker.Attend().ok());
    EXPECT_EQ(DurableState(t.cluster.coordinator()), before);
    EXPECT_EQ(t.worker.Orders().trainers_size(), 0);
    EXPECT_EQ(t.cluster.Status(t.job).profile().timeline_bytes_size(), 3);
  }
}

TEST(Planning, ARestartBeforeThePlanPlansAgain) {
  Planning t(PlanOnly());
  t.cluster.Restart();
  ASSERT_TRUE(t.worker.Attend().ok());
  EXPECT_EQ(t.cluster.State(t.job), v1::PLANNING);
  EXPECT_EQ(t.Report(WithPicture(t.job, PlanOnly())).state(), v1::DONE);
}

TEST(Planning, ARefusedJobKeepsItsProfileOverARestart) {
  for (const bool plan_only : {false, true}) {
    v1::Job job = SmallJob();
    job.set_plan_only(plan_only);
    Planning t(job);
    v1::PlanReport plan = WithPicture(t.job, job);
    plan.clear_resolved();
    plan.set_failure(v1::OUT_OF_MEMORY);
    plan.add_errors("memory.limit: it needs more");
    EXPECT_EQ(t.Report(plan).state(), v1::REFUSED);
    for (const bool restarted : {false, true}) {
      if (restarted) t.cluster.Restart();
      const v1::JobStatus status = t.cluster.Status(t.job);
      EXPECT_EQ(status.failure(), v1::OUT_OF_MEMORY);
      EXPECT_FALSE(status.has_resolved());
      EXPECT_EQ(status.profile().bytes_by_category().at("activations"), 60u << 20);
      EXPECT_EQ(status.profile().remedies(0).name(), "threads");
      EXPECT_EQ(status.profile().timeline_bytes_size(), 3);
    }
  }
}

TEST(Planning, AJobThatTrainsHasItsProfileWithoutThePicture) {
  Planning t(SmallJob());
  EXPECT_FALSE(t.cluster.Status(t.job).has_profile());
  const v1::JobStatus status = t.Report(WithPicture(t.job, SmallJob()));
  EXPECT_EQ(status.state(), v1::RUNNING);
  EXPECT_EQ(status.profile().at_peak(), "backward conv1");
  EXPECT_EQ(status.profile().timeline_bytes_size(), 0) << "its record is written with every step";
}

TEST(Planning, WhatTheWorkersCouldNotRunIsRefusedUnlessItHasALimitOfItsOwn) {
  Planning small(PlanOnly(), 90 << 20);
  const v1::JobStatus refused = small.Report(WithPicture(small.job, PlanOnly()));
  EXPECT_EQ(refused.state(), v1::REFUSED);
  EXPECT_EQ(refused.failure(), v1::OUT_OF_MEMORY);
  EXPECT_THAT(refused.reason(), HasSubstr("a worker with 1"));
  EXPECT_TRUE(refused.has_profile());
  v1::Job elsewhere = PlanOnly();
  elsewhere.mutable_memory()->set_limit_bytes(uint64_t{1} << 40);
  Planning t(elsewhere, 90 << 20);
  const v1::JobStatus planned = t.Report(WithPicture(t.job, elsewhere));
  EXPECT_EQ(planned.state(), v1::DONE);
  EXPECT_THAT(*planned.plan_notes().rbegin(), HasSubstr("not on the workers known: 1 replica of 1"));
}

TEST(Planning, ForCudaTheWorkersMemoryDoesNotMatterAndTheProfileComesThroughWhole) {
  v1::Job job = PlanOnly();
  job.set_device(v1::Job::CUDA);
  Planning t(job, 90 << 20);
  v1::PlanReport plan = WithPicture(t.job, job);
  v1::MemoryProfile& profile = *plan.mutable_profile();
  profile.set_device(v1::Job::CUDA);
  profile.set_resident_bytes(uint64_t{40} << 30);
  profile.mutable_host()->set_resident_bytes(uint64_t{2} << 30);
  (*profile.mutable_host()->mutable_bytes_by_category())["runtime"] = uint64_t{2} << 30;
  const v1::JobStatus status = t.Report(plan);
  EXPECT_EQ(status.state(), v1::DONE) << status.reason();
  for (const std::string& note : status.plan_notes()) EXPECT_THAT(note, testing::Not(HasSubstr("workers known")));
  EXPECT_EQ(t.worker.Orders().trainers_size(), 0);
  for (const bool restarted : {false, true}) {
    if (restarted) t.cluster.Restart();
    const v1::MemoryProfile kept = t.cluster.Status(t.job).profile();
    EXPECT_EQ(kept.device(), v1::Job::CUDA);
    EXPECT_EQ(kept.resident_bytes(), uint64_t{40} << 30);
    EXPECT_EQ(kept.host().bytes_by_category().at("runtime"), uint64_t{2} << 30);
    EXPECT_EQ(kept.host().resident_bytes(), uint64_t{2} << 30);
  }
}

TEST(Planning, AJobThatIsOnlyPlannedIsCancelledButNotPaused) {
  Planning t(PlanOnly());
  EXPECT_EQ(t.cluster->Pause(t.job).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(t.cluster->Cancel(t.job)->state(), v1::CANCELLED);
  EXPECT_EQ(t.cluster->ReportPlan(WithPicture(t.job, PlanOnly())).code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace lockstep
