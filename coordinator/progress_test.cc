#include "coordinator/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

v1::ProgressReport ReportOf(std::initializer_list<uint64_t> steps) {
  v1::ProgressReport report;
  for (const uint64_t step : steps) *report.add_steps() = StepOf(step, 2);
  return report;
}

void AddEpoch(v1::ProgressReport& report, uint32_t epoch, uint64_t step) {
  report.add_epochs()->set_epoch(epoch);
  report.mutable_epochs(report.epochs_size() - 1)->set_step(step);
}

TEST(NewEvents, StepsThatAreKnownArePassedOver) {
  const auto events = NewEvents(ReportOf({1, 2, 3, 4}), {StepOf(1, 1), StepOf(2, 1)}, 2, 0);
  ASSERT_TRUE(events.ok()) << events.status();
  ASSERT_EQ(events->size(), 2u);
  EXPECT_EQ((*events)[0].step().step(), 3u);
  EXPECT_EQ((*events)[1].step().step(), 4u);
}

TEST(NewEvents, AnEpochComesBehindTheStepThatEndedIt) {
  v1::ProgressReport report = ReportOf({3, 4, 5});
  AddEpoch(report, 1, 2);
  AddEpoch(report, 2, 4);
  const auto events = NewEvents(report, {}, 2, 0);
  ASSERT_TRUE(events.ok());
  ASSERT_EQ(events->size(), 5u);
  EXPECT_EQ((*events)[0].epoch().epoch(), 1u);
  EXPECT_EQ((*events)[2].step().step(), 4u);
  EXPECT_EQ((*events)[3].epoch().epoch(), 2u);
  EXPECT_EQ(NewEvents(report, {}, 2, 2)->size(), 3u) << "known epochs are passed over";
}

TEST(NewEvents, AMissingStepIsRefused) {
  for (const auto& report : {ReportOf({4}), ReportOf({3, 5}), ReportOf({4, 3}), ReportOf({0})}) {
    const auto events = NewEvents(report, {}, 2, 0);
    EXPECT_EQ(events.status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(NewEvents, OtherBitsAtTheSameStepAreNamed) {
  v1::StepRecord before = StepOf(2, 1);
  before.set_state_hash("other");
  absl::Status status = NewEvents(ReportOf({2}), {before}, 2, 0).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("same bits violated at step 2: the state's hash is"));
  EXPECT_THAT(status.message(), HasSubstr("in generation 2, and was other in generation 1"));
  before = StepOf(2, 1);
  before.set_sample_digest(5);
  EXPECT_THAT(NewEvents(ReportOf({2}), {before}, 2, 0).status().message(), HasSubstr("the digest of its samples"));
  before = StepOf(2, 1);
  before.clear_state_hash();
  EXPECT_TRUE(NewEvents(ReportOf({2}), {before}, 2, 0).ok()) << "no hash was computed there";
}

}  // namespace
}  // namespace lockstep
