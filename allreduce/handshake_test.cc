#include "allreduce/handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <thread>

#include "absl/time/clock.h"

namespace lockstep::allreduce {
namespace {

using testing::HasSubstr;

struct Ends {
  FileDescriptor connecting, accepting;
};
Ends Pair() {
  std::array<int, 2> fds{};
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0);
  return {FileDescriptor(fds[0]), FileDescriptor(fds[1])};
}

struct Outcome {
  absl::Status connecting;
  absl::StatusOr<int> accepting;
};
// Rank 2 of 3 connects to rank 0.
Outcome Shake(const Identity& two, const std::string& token_of_two, const Identity& zero, const std::string& token_of_zero) {
  Ends ends = Pair();
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  Outcome outcome;
  std::thread thread([&] {
    const FileDescriptor closes_when_done = std::move(ends.connecting);
    outcome.connecting = Introduce(closes_when_done, two, 0, token_of_two, deadline);
  });
  outcome.accepting = Welcome(
      ends.accepting, zero, token_of_zero, [](int rank) { return rank == 1 || rank == 2; }, deadline);
  thread.join();
  return outcome;
}

const Identity kZero{7, 99, 0, 3};
const Identity kTwo{7, 99, 2, 3};

TEST(Handshake, WithTheSameTokenBothGoOn) {
  const Outcome outcome = Shake(kTwo, "secret", kZero, "secret");
  EXPECT_TRUE(outcome.connecting.ok()) << outcome.connecting;
  ASSERT_TRUE(outcome.accepting.ok()) << outcome.accepting.status();
  EXPECT_EQ(*outcome.accepting, 2);
}

TEST(Handshake, AnotherTokenIsRefusedByBothEnds) {
  const Outcome outcome = Shake(kTwo, "guess", kZero, "secret");
  EXPECT_TRUE(absl::IsPermissionDenied(outcome.connecting)) << outcome.connecting;
  EXPECT_TRUE(absl::IsPermissionDenied(outcome.accepting.status())) << outcome.accepting.status();
}

TEST(Handshake, AnotherGenerationIsRefusedAndBothAreNamed) {
  const Outcome outcome = Shake({6, 99, 2, 3}, "secret", kZero, "secret");
  EXPECT_TRUE(absl::IsFailedPrecondition(outcome.connecting)) << outcome.connecting;
  EXPECT_THAT(std::string(outcome.connecting.message()), HasSubstr("generation 6, but this is generation 7"));
  EXPECT_TRUE(absl::IsFailedPrecondition(outcome.accepting.status()));
}

TEST(Handshake, AnotherLayoutOrAnUnexpectedRankIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Shake({7, 98, 2, 3}, "secret", kZero, "secret").connecting));
  EXPECT_TRUE(absl::IsInvalidArgument(Shake({7, 99, 2, 4}, "secret", kZero, "secret").connecting));
  EXPECT_TRUE(absl::IsInvalidArgument(Shake({7, 99, 0, 3}, "secret", kZero, "secret").connecting));
  EXPECT_TRUE(absl::IsInvalidArgument(Shake(kTwo, "secret", {7, 99, 1, 3}, "secret").connecting));  // the wrong end answers
}

TEST(Handshake, AStrangerOrOneWhoLeavesIsNoPeer) {
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  const auto nobody = [](int) { return true; };
  const Ends ends = Pair();
  const std::array<std::byte, 48> noise{};
  ASSERT_TRUE(SendAll(ends.connecting, noise, deadline).ok());
  EXPECT_TRUE(absl::IsDataLoss(Welcome(ends.accepting, kZero, "secret", nobody, deadline).status()));
  Ends gone = Pair();
  { const FileDescriptor closes = std::move(gone.connecting); }
  EXPECT_TRUE(absl::IsAborted(Welcome(gone.accepting, kZero, "secret", nobody, deadline).status()));
  const Ends silent = Pair();
  EXPECT_TRUE(absl::IsDeadlineExceeded(Welcome(silent.accepting, kZero, "secret", nobody, absl::Now()).status()));
}

}  // namespace
}  // namespace lockstep::allreduce
