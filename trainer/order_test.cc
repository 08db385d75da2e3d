#include "trainer/order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep {
namespace {

using testing::ElementsAre;

v1::TrainerStart Start() {
  v1::TrainerStart start;
  start.set_scratch("/scratch");
  start.set_address("127.0.0.3");
  v1::TrainerOrder* order = start.mutable_order();
  order->set_job_id("j1");
  order->set_generation(4);
  order->set_rank(1);
  order->set_threads(2);
  order->set_generation_secret("secret");
  for (uint32_t rank = 0; rank < 3; ++rank) {
    v1::Member* member = order->add_members();
    member->set_rank(rank);
    member->set_first_virtual_replica(rank * 3);
    member->set_virtual_replica_count(rank == 2 ? 2 : 3);
  }
  v1::Job* job = order->mutable_job();
  job->set_kind(v1::Job::FIT);
  job->set_batch(64);
  job->set_epochs(3);
  job->set_virtual_replicas(8);
  job->mutable_data()->mutable_train()->set_folder("/data/train");
  return start;
}

TEST(Status, TellsOfMemoryThatRanOut) {
  StatusFigures figures;
  figures.out_of_memory_retries = 3;
  figures.refused_allocations = 7;
  const v1::TrainerStatus status = ToProto(figures);
  EXPECT_EQ(status.out_of_memory_retries(), 3u);
  EXPECT_EQ(status.refused_allocations(), 7u);
}

TEST(Order, BecomesARunSpec) {
  v1::TrainerStart start = Start();
  start.mutable_order()->mutable_job()->mutable_data()->set_no_shuffle(true);
  const RunSpec spec = ToRunSpec(start);
  EXPECT_EQ(spec.job_id, "j1");
  EXPECT_EQ(spec.generation, 4u);
  EXPECT_EQ(spec.ranks(), 3);
  EXPECT_EQ(spec.my_run().begin, 3);
  EXPECT_EQ(spec.my_run().end, 6);
  EXPECT_EQ(spec.runs[2].size(), 2);
  EXPECT_EQ(spec.secret, "secret");
  EXPECT_EQ(spec.train_folder, "/data/train");
  EXPECT_FALSE(spec.shuffle);
}

TEST(Order, WhatIsLeftOutHasTheJobsDefaults) {
  v1::TrainerStart start = Start();
  start.mutable_order()->clear_threads();
  start.mutable_order()->mutable_job()->mutable_reduce_on_plateau()->set_metric("val_loss");
  const RunSpec spec = ToRunSpec(start);
  EXPECT_EQ(spec.threads, 1);
  EXPECT_TRUE(spec.shuffle);
  EXPECT_FALSE(spec.drop_last);
  EXPECT_TRUE(spec.image.antialias);
  EXPECT_FALSE(spec.image.scale.has_value());
  EXPECT_EQ(spec.state_hash_every, 1);
  ASSERT_TRUE(spec.reduce_on_plateau.has_value());
  EXPECT_EQ(spec.reduce_on_plateau->factor, 0.1);
  EXPECT_EQ(spec.reduce_on_plateau->patience, 10);
  EXPECT_FALSE(spec.stop_early.has_value());
}

TEST(PlanReport, WritesEveryDefaultIntoTheResolvedJob) {
  PlanOutcome outcome;
  outcome.resolved = ToRunSpec(Start());
  outcome.resolved.micro_batch = 8;
  outcome.resolved.precision = "float32";
  outcome.resolved.image = {.height = 96, .width = 128, .method = "bilinear", .scale = 0.5};
  outcome.total_steps = 12;
  outcome.profile.emplace().peak[memory::Category::kActivations] = 1000;
  const v1::PlanReport report = ToProto(outcome, Start().order().job(), "j1");
  EXPECT_EQ(report.job_id(), "j1");
  EXPECT_EQ(report.failure(), v1::NO_FAILURE);
  EXPECT_EQ(report.resolved().micro_batch(), 8u);
  EXPECT_EQ(report.resolved().data().image().width(), 128u);
  EXPECT_EQ(report.resolved().data().image().scale(), 0.5);
  EXPECT_EQ(report.resolved().replicas().min(), 1u);
  EXPECT_EQ(report.total_steps(), 12u);
  EXPECT_EQ(report.profile().bytes_by_category().at("activations"), 1000u);
}

TEST(PlanReport, SegmentsWithinSegmentsComeBackAsTheyWere) {
  PlanOutcome outcome;
  outcome.resolved = ToRunSpec(Start());
  const std::vector<Segment> segments = {{1, 9, {3, 5}, {{1, 4, {2}}, {6, 8, {}}}}, {9, 12, {}}};
  outcome.resolved.recompute.segments = segments;
  v1::TrainerStart start = Start();
  *start.mutable_order()->mutable_job() = ToProto(outcome, Start().order().job(), "j1").resolved();
  EXPECT_EQ(ToRunSpec(start).recompute.segments, segments);
}

TEST(PlanReport, OfADeviceHasTheHostBesideIt) {
  v1::TrainerStart start = Start();
  EXPECT_EQ(ToRunSpec(start).device, Device::kCpu);
  start.mutable_order()->mutable_job()->set_device(v1::Job::CUDA);
  PlanOutcome outcome;
  outcome.resolved = ToRunSpec(start);
  EXPECT_EQ(outcome.resolved.device, Device::kCuda);
  MemoryProfile& profile = outcome.profile.emplace();
  profile.host[memory::Category::kRuntime] = 7;
  EXPECT_FALSE(ToProto(outcome, start.order().job(), "j1").profile().has_host());
  profile.device = Device::kCuda;
  profile.host[memory::Category::kInputPipeline] = 5;
  const v1::PlanReport report = ToProto(outcome, start.order().job(), "j1");
  EXPECT_EQ(report.profile().device(), v1::Job::CUDA);
  EXPECT_EQ(report.resolved().device(), v1::Job::CUDA);
  EXPECT_EQ(report.profile().host().bytes_by_category().at("runtime"), 7u);
  EXPECT_EQ(report.profile().host().resident_bytes(), 12u);
}

TEST(PlanReport, ErrorsStandAlone) {
  PlanOutcome outcome;
  outcome.errors = {"batch: too many", "data.train: no such folder"};
  outcome.failure = Ending::kOutOfMemory;
  const v1::PlanReport report = ToProto(outcome, Start().order().job(), "j1");
  EXPECT_THAT(report.errors(), ElementsAre("batch: too many", "data.train: no such folder"));
  EXPECT_EQ(report.failure(), v1::OUT_OF_MEMORY);
  EXPECT_FALSE(report.has_resolved());
}

TEST(Records, MemoryCarriesEveryCategory) {
  MemoryFigures figures;
  figures.bytes[memory::Category::kParameters] = 5;
  figures.bytes[memory::Category::kUnaccounted] = -3;
  const v1::MemoryReport report = ToProto(figures);
  EXPECT_EQ(report.bytes_by_category().size(), memory::kCategories);
  EXPECT_EQ(report.bytes_by_category().at("parameters"), 5u);
  EXPECT_EQ(report.bytes_by_category().at("unaccounted"), 0u) << "measured more finely than the kernel counts: nothing is missing";
}

TEST(Records, HighWaterMarksAreOfTheStatusAndNotOfEveryStep) {
  MemoryFigures figures;
  figures.high_water.push_back({"backward", "conv1", 77});
  const v1::MemoryReport report = ToProto(figures);
  ASSERT_EQ(report.high_water_size(), 1);
  EXPECT_EQ(report.high_water(0).phase(), "backward");
  EXPECT_EQ(report.high_water(0).layer(), "conv1");
  EXPECT_EQ(report.high_water(0).bytes(), 77u);
  StepFigures step;
  step.memory = figures;
  EXPECT_EQ(ToProto(step).memory().high_water_size(), 0) << "their records are kept for ever";
}

}  // namespace
}  // namespace lockstep
