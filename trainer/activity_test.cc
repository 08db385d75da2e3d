#include "trainer/activity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep {
namespace {

using testing::HasSubstr;

TEST(Activity, TellsThePhaseAtHandAndTheLastOnes) {
  Activity activity;
  EXPECT_EQ(activity.Take().phase, "loading");
  for (uint64_t step = 1; step <= 10; ++step) {
    activity.Enter(Activity::kStepBegins, step);
    activity.Enter("compute", step);
    activity.Enter(Activity::kWaitsForOthers, step);
  }
  const Activity::View view = activity.Take();
  EXPECT_EQ(view.phase, "reduce");
  EXPECT_EQ(view.step, 10u);
  ASSERT_EQ(view.recent.size(), 16u);
  EXPECT_THAT(view.recent.back(), HasSubstr("compute of step 10: 0.0"));
  EXPECT_GT(view.busy_seconds, 0);
  EXPECT_LT(view.busy_seconds, 1);
}

}  // namespace
}  // namespace lockstep
