#include "rpc/frame.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/cluster.pb.h"

namespace lockstep {
namespace {

class Frame : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds_), 0); }
  void TearDown() override {
    for (const int fd : fds_) close(fd);
  }
  int fds_[2] = {-1, -1};
};

TEST_F(Frame, ComesOutAsItWentIn) {
  v1::TrainerStatus status;
  status.set_phase("training");
  status.set_step(7);
  ASSERT_TRUE(WriteFrame(fds_[0], status).ok());
  ASSERT_TRUE(WriteFrame(fds_[0], v1::TrainerStatus()).ok());
  EXPECT_EQ((*ReadFrame<v1::TrainerStatus>(fds_[1]))->step(), 7u);
  EXPECT_EQ((*ReadFrame<v1::TrainerStatus>(fds_[1]))->phase(), "") << "an empty message is a frame too";
}

TEST_F(Frame, EndOfFileBetweenFramesIsNothingAndWithinOneIsDataLoss) {
  const char half[] = {9, 0, 0, 0, 1};
  ASSERT_EQ(write(fds_[0], half, sizeof(half)), static_cast<ssize_t>(sizeof(half)));
  shutdown(fds_[0], SHUT_WR);
  EXPECT_EQ(ReadFrame<v1::TrainerStatus>(fds_[1]).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(ReadFrame<v1::TrainerStatus>(fds_[1])->has_value());
}

TEST_F(Frame, ALengthBeyondReasonIsDataLoss) {
  const unsigned char huge[] = {255, 255, 255, 255};
  ASSERT_EQ(write(fds_[0], huge, sizeof(huge)), static_cast<ssize_t>(sizeof(huge)));
  EXPECT_EQ(ReadFrame<v1::TrainerStatus>(fds_[1]).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(Frame, WritingToNobodyIsUnavailable) {
  close(fds_[1]);
  v1::TrainerStatus status;
  status.set_phase("training");
  EXPECT_EQ(WriteFrame(fds_[0], status).code(), absl::StatusCode::kUnavailable);
  fds_[1] = -1;
}

}  // namespace
}  // namespace lockstep
