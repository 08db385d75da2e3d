#include "coordinator/meeting.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep {
namespace {

using testing::HasSubstr;

v1::Endpoint At(const std::string& address) {
  v1::Endpoint endpoint;
  endpoint.set_address(address);
  return endpoint;
}

TEST(Meeting, IsCompleteOnceEveryRankCame) {
  Meeting meeting(3);
  EXPECT_EQ(meeting.MissingRanks(), (std::set<uint32_t>{0, 1, 2}));
  EXPECT_TRUE(meeting.Join(2, At("c"), {}).ok());
  EXPECT_TRUE(meeting.Join(0, At("a"), {}).ok());
  EXPECT_EQ(meeting.MissingRanks(), std::set<uint32_t>{1});
  EXPECT_FALSE(meeting.complete());
  EXPECT_TRUE(meeting.Join(1, At("b"), {}).ok());
  ASSERT_TRUE(meeting.complete());
  const v1::RendezvousResponse response = meeting.Response();
  ASSERT_EQ(response.endpoints_size(), 3);
  EXPECT_EQ(response.endpoints(0).address(), "a");
  EXPECT_EQ(response.endpoints(2).address(), "c");
}

TEST(Meeting, ACallMadeAgainCountsOnce) {
  Meeting meeting(2);
  EXPECT_TRUE(meeting.Join(0, At("a"), {}).ok());
  EXPECT_TRUE(meeting.Join(0, At("a2"), {}).ok()) << "nobody was told of the first";
  EXPECT_TRUE(meeting.Join(1, At("b"), {}).ok());
  EXPECT_TRUE(meeting.Join(0, At("a2"), {}).ok());
  EXPECT_EQ(meeting.Join(0, At("a3"), {}).code(), absl::StatusCode::kAborted);
}

TEST(Meeting, DifferentKindsAreRefusedByTheField) {
  Meeting meeting(2);
  EXPECT_TRUE(meeting.Join(0, At("a"), {{"cpu_capability", "AVX512"}, {"torch", "2.11.0"}}).ok());
  const absl::Status refused = meeting.Join(1, At("b"), {{"cpu_capability", "AVX2"}, {"torch", "2.11.0"}});
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("cpu_capability is \"AVX512\" on rank 0, and \"AVX2\" on rank 1"));
  EXPECT_THAT(meeting.Join(1, At("b"), {{"cpu_capability", "AVX512"}}).message(), HasSubstr("torch is \"2.11.0\" on rank 0, and unknown"));
}

TEST(Meeting, ARankThatIsNone) { EXPECT_EQ(Meeting(2).Join(2, At("x"), {}).code(), absl::StatusCode::kInvalidArgument); }

}  // namespace
}  // namespace lockstep
