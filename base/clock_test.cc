#include "base/clock.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(ManualClock, MovesOnlyWhenTold) {
  ManualClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Hours(3));
  EXPECT_EQ(clock.Now() - start, absl::Hours(3));
}

}  // namespace
}  // namespace lockstep
