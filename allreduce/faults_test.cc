// What happens when peers die, stop, lie or are somebody else.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "allreduce/frame.h"
#include "allreduce/handshake.h"
#include "allreduce/testing_ranks.h"

namespace lockstep::allreduce {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

const Layout& SmallLayout() {
  static const size_t counts[] = {4096};
  static const Layout layout = MakeLayout(counts, Element::kFloat32, 4096);
  return layout;
}

void SubmitAll(OrderedAllReduce& all_reduce, const Layout& layout) {
  for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) all_reduce.Submit(static_cast<int>(bucket)).IgnoreError();
}

// Ranks as processes. The test's own process is rank 0; the others run `body`, and say a byte over a pipe where it calls the function
// given to it.
class Processes {
 public:
  using Body = std::function<void(OrderedAllReduce& all_reduce, int rank, const std::function<void()>& tell)>;

  Processes(const RanksOptions& options, const Body& body) : listeners_(MakeListeners(options)), endpoints_(EndpointsOf(listeners_)) {
    EXPECT_EQ(pipe2(pipe_.data(), O_CLOEXEC), 0);
    for (int rank = 1; rank < static_cast<int>(options.runs.size()); ++rank) {
      const pid_t pid = fork();
      if (pid == 0) RunChild(options, rank, body);
      pids_.push_back(pid);
    }
    std::unique_ptr<Listener> mine = std::move(listeners_.front());
    listeners_.clear();
    auto connected = OrderedAllReduce::Connect(OptionsOf(options, 0), std::move(mine), endpoints_);
    EXPECT_TRUE(connected.ok()) << connected.status();
    all_reduce_ = *std::move(connected);
  }
  ~Processes() {
    all_reduce_.reset();
    for (const pid_t pid : pids_) {
      kill(pid, SIGCONT);
      waitpid(pid, nullptr, 0);
    }
    close(pipe_[0]);
    close(pipe_[1]);
  }

  OrderedAllReduce& all_reduce() { return *all_reduce_; }
  pid_t pid(int rank) const { return pids_[static_cast<size_t>(rank) - 1]; }
  void AwaitByte() {
    char byte = 0;
    EXPECT_EQ(read(pipe_[0], &byte, 1), 1);
  }

 private:
  [[noreturn]] void RunChild(const RanksOptions& options, int rank, const Body& body) {
    std::unique_ptr<Listener> mine = std::move(listeners_[static_cast<size_t>(rank)]);
    listeners_.clear();
    auto connected = OrderedAllReduce::Connect(OptionsOf(options, rank), std::move(mine), endpoints_);
    if (connected.ok()) {
      body(**connected, rank, [this] {
        const char byte = 1;
        if (write(pipe_[1], &byte, 1) != 1) _exit(3);
      });
      connected->reset();
    }
    _exit(connected.ok() && !testing::Test::HasFailure() ? 0 : 1);
  }

  std::vector<std::unique_ptr<Listener>> listeners_;
  const std::vector<Endpoint> endpoints_;
  std::array<int, 2> pipe_{};
  std::vector<pid_t> pids_;
  std::unique_ptr<OrderedAllReduce> all_reduce_;
};

std::string HostA(int) { return "a"; }
std::string HostEach(int rank) { return absl::StrCat(rank); }
std::string HostOfPairs(int rank) { return absl::StrCat(rank / 2); }

class Death : public testing::TestWithParam<std::string (*)(int)> {};
INSTANTIATE_TEST_SUITE_P(Hosts, Death, testing::Values(&HostA, &HostEach, &HostOfPairs));

TEST_P(Death, AKilledRankAbortsFinishOnAllOthersWithinASecond) {
  const RanksOptions options{.runs = {{0, 1}, {1, 2}, {2, 3}}, .layout = SmallLayout(), .host_of = GetParam()};
  // Rank 1 waits in Finish too; rank 2 reduces what it can of two steps, and is killed in the middle of the second.
  Processes processes(options, [](OrderedAllReduce& all_reduce, int rank, const auto& tell) {
    SubmitAll(all_reduce, SmallLayout());
    if (!all_reduce.Finish("").ok()) _exit(1);
    if (rank == 2) {
      all_reduce.Submit(0).IgnoreError();
      tell();
      pause();
    }
    SubmitAll(all_reduce, SmallLayout());
    const absl::Time start = absl::Now();
    const absl::Status finished = all_reduce.Finish("").status();
    const bool named = absl::StrContains(finished.message(), "rank 2 is gone");
    if (!absl::IsAborted(finished) || !named || absl::Now() - start > absl::Seconds(5)) _exit(2);
  });
  SubmitAll(processes.all_reduce(), SmallLayout());
  ASSERT_TRUE(processes.all_reduce().Finish("").ok());
  SubmitAll(processes.all_reduce(), SmallLayout());
  processes.AwaitByte();
  const absl::Time killed = absl::Now();
  kill(processes.pid(2), SIGKILL);
  const absl::Status finished = processes.all_reduce().Finish("").status();
  EXPECT_LT(absl::Now() - killed, absl::Seconds(1));
  EXPECT_TRUE(absl::IsAborted(finished)) << finished;
  EXPECT_THAT(std::string(finished.message()), HasSubstr("rank 2 is gone"));
  int status = 0;
  waitpid(processes.pid(1), &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_P(Death, AStoppedRankIsNamedAfterTheSilenceAllowed) {
  const RanksOptions options{
      .runs = {{0, 1}, {1, 2}, {2, 3}}, .layout = SmallLayout(), .host_of = GetParam(), .timeouts = {.silence = absl::Milliseconds(200)}};
  Processes processes(options, [](OrderedAllReduce& all_reduce, int rank, const auto& tell) {
    if (rank == 2) {
      tell();
      raise(SIGSTOP);
    }
    SubmitAll(all_reduce, SmallLayout());
    all_reduce.Finish("").IgnoreError();
  });
  processes.AwaitByte();
  SubmitAll(processes.all_reduce(), SmallLayout());
  const absl::Status finished = processes.all_reduce().Finish("").status();
  EXPECT_TRUE(absl::IsAborted(finished)) << finished;
  EXPECT_THAT(std::string(finished.message()), HasSubstr("rank 2 gave no sign of life for 200ms"));
}

TEST_P(Death, ARankThatComputesForLongerThanTheSilenceAllowedIsWaitedFor) {
  const RanksOptions options{
      .runs = {{0, 1}, {1, 2}, {2, 3}}, .layout = SmallLayout(), .host_of = GetParam(), .timeouts = {.silence = absl::Seconds(1)}};
  RunRanks(options, [](OrderedAllReduce& all_reduce, int rank) {
    // Busy, as a compute thread is. A loaded machine may keep the thread that shows life waiting for a few hundred milliseconds.
    const absl::Time until = absl::Now() + absl::Milliseconds(rank == 2 ? 2200 : 0);
    while (absl::Now() < until) {
    }
    SubmitAll(all_reduce, SmallLayout());
    const auto verdicts = all_reduce.Finish("");
    EXPECT_TRUE(verdicts.ok()) << verdicts.status();
  });
}

TEST_P(Death, ARankMayLeaveOnceItHasFinishedItsLastStep) {
  const RanksOptions options{.runs = {{0, 1}, {1, 2}, {2, 3}}, .layout = SmallLayout(), .host_of = GetParam()};
  for (int round = 0; round < 20; ++round) {
    RunRanks(options, [](OrderedAllReduce& all_reduce, int rank) {
      SubmitAll(all_reduce, SmallLayout());
      const auto verdicts = all_reduce.Finish(absl::StrCat(rank));
      EXPECT_TRUE(verdicts.ok()) << verdicts.status();
    });
  }
}

TEST_P(Death, WhoeverGivesUpTellsTheOthersWhy) {
  const RanksOptions options{.runs = {{0, 1}, {1, 2}, {2, 3}}, .layout = SmallLayout(), .host_of = GetParam()};
  RunRanks(options, [](OrderedAllReduce& all_reduce, int rank) {
    if (rank != 1) SubmitAll(all_reduce, SmallLayout());
    const absl::Status finished = all_reduce.Finish("").status();
    EXPECT_TRUE(rank == 1 ? absl::IsFailedPrecondition(finished) : absl::IsAborted(finished)) << finished;
    EXPECT_THAT(std::string(finished.message()), AnyOf(HasSubstr("0 of 4 buckets"), HasSubstr("is gone")));
  });
}

// A peer on another host that has shaken hands, and then says what the test wants.
class LyingPeer {
 public:
  LyingPeer() : listeners_(MakeListeners(options_)), endpoints_(EndpointsOf(listeners_)) {}

  // Finish of rank 0 while rank 1 sends these bytes.
  absl::Status FinishAgainst(const std::string& bytes) {
    absl::Status finished;
    std::thread honest([&] {
      auto all_reduce = OrderedAllReduce::Connect(OptionsOf(options_, 0), std::move(listeners_[0]), endpoints_);
      ASSERT_TRUE(all_reduce.ok()) << all_reduce.status();
      SubmitAll(**all_reduce, options_.layout);
      finished = (*all_reduce)->Finish("").status();
    });
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    const auto socket = ConnectTcp(endpoints_[0].address, deadline);
    EXPECT_TRUE(socket.ok());
    const Options options = OptionsOf(options_, 1);
    const Identity identity{options.membership.generation, Fingerprint(options.membership, options.layout), 1, 2};
    EXPECT_TRUE(Introduce(*socket, identity, 0, options.token, deadline).ok());
    EXPECT_TRUE(SendAll(*socket, std::as_bytes(std::span(bytes)), deadline).ok());
    honest.join();
    return finished;
  }

 private:
  const RanksOptions options_{.generation = 7, .runs = {{0, 1}, {1, 2}}, .layout = SmallLayout(), .host_of = HostEach};
  std::vector<std::unique_ptr<Listener>> listeners_;
  const std::vector<Endpoint> endpoints_;
};

std::string FrameOf(FrameType type, uint64_t generation, uint64_t sequence, const std::string& payload) {
  const FrameHeader header = MakeFrameHeader(type, generation, sequence, {std::as_bytes(std::span(payload))});
  return std::string(reinterpret_cast<const char*>(&header), sizeof(header)) + payload;
}

// A whole frame that rank 1 might send: its sums of rank 0's chunk (half a bucket of 4096 bytes).
std::string GoodFrame(uint64_t generation = 7) { return FrameOf(FrameType::kSums, generation, 0, std::string(2048, 'x')); }

TEST(LyingPeer, ADamagedPayloadIsDataLoss) {
  std::string frame = GoodFrame();
  frame[1000] ^= 1;
  const absl::Status finished = LyingPeer().FinishAgainst(frame);
  EXPECT_TRUE(absl::IsDataLoss(finished)) << finished;
  EXPECT_THAT(std::string(finished.message()), HasSubstr("from rank 1: the frame of sums 0 (2048 bytes) has a wrong checksum"));
}

TEST(LyingPeer, ADamagedHeaderIsDataLossWhicheverByteItIs) {
  for (size_t at = 0; at < sizeof(FrameHeader); at += 5) {
    std::string frame = GoodFrame();
    frame[at] ^= 4;
    const absl::Status finished = LyingPeer().FinishAgainst(frame);
    EXPECT_TRUE(absl::IsDataLoss(finished)) << "byte " << at << ": " << finished;
  }
}

TEST(LyingPeer, AFrameOfAnotherGenerationIsRefused) {
  const absl::Status finished = LyingPeer().FinishAgainst(GoodFrame(6));
  EXPECT_TRUE(absl::IsFailedPrecondition(finished)) << finished;
  EXPECT_THAT(std::string(finished.message()), HasSubstr("is of generation 6, not 7"));
}

TEST(LyingPeer, FramesThatCannotComeNextAreDataLoss) {
  EXPECT_TRUE(absl::IsDataLoss(LyingPeer().FinishAgainst(FrameOf(FrameType::kSums, 7, 1, std::string(2048, 'x')))));
  EXPECT_TRUE(absl::IsDataLoss(LyingPeer().FinishAgainst(FrameOf(FrameType::kSums, 7, 0, std::string(2044, 'x')))));
  EXPECT_TRUE(absl::IsDataLoss(LyingPeer().FinishAgainst(FrameOf(FrameType::kResult, 7, 3, std::string(2048, 'x')))));
  EXPECT_TRUE(absl::IsDataLoss(LyingPeer().FinishAgainst(FrameOf(FrameType::kVerdict, 7, 0, std::string(kMaxVerdictBytes + 1, 'x')))));
  EXPECT_TRUE(absl::IsDataLoss(LyingPeer().FinishAgainst(FrameOf(static_cast<FrameType>(9), 7, 0, ""))));
}

TEST(Connect, ARankWithAnotherTokenGetsNowhereAndAStrangerDoesNoHarm) {
  const RanksOptions ranks{.runs = {{0, 1}, {1, 2}}, .layout = SmallLayout(), .timeouts = {.connect = absl::Milliseconds(500)}};
  std::vector<std::unique_ptr<Listener>> listeners = MakeListeners(ranks);
  const std::vector<Endpoint> endpoints = EndpointsOf(listeners);
  absl::Status zero, one;
  std::thread first([&] { zero = OrderedAllReduce::Connect(OptionsOf(ranks, 0), std::move(listeners[0]), endpoints).status(); });
  std::thread second([&] {
    Options options = OptionsOf(ranks, 1);
    options.token = "guess";
    one = OrderedAllReduce::Connect(options, std::move(listeners[1]), endpoints).status();
  });
  first.join();
  second.join();
  EXPECT_TRUE(absl::IsPermissionDenied(one)) << one;
  EXPECT_TRUE(absl::IsDeadlineExceeded(zero)) << zero;
  EXPECT_THAT(std::string(zero.message()), HasSubstr("rank 1; last refused: rank 1 has another token"));
}

TEST(Connect, AfterARefusedStrangerTheRightPeerIsStillWelcome) {
  for (const bool local : {true, false}) {
    const RanksOptions ranks{.runs = {{0, 1}, {1, 2}}, .layout = SmallLayout(), .host_of = local ? HostA : HostEach};
    std::vector<std::unique_ptr<Listener>> listeners = MakeListeners(ranks);
    const std::vector<Endpoint> endpoints = EndpointsOf(listeners);
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    auto stranger = local ? ConnectLocal(endpoints[0].local_socket, deadline) : ConnectTcp(endpoints[0].address, deadline);
    ASSERT_TRUE(stranger.ok());
    ASSERT_TRUE(
        SendAll(*stranger, std::as_bytes(std::span("GET / HTTP/1.1\r\nHost: trainer.example.com:80\r\n\r\n")).first(48), deadline).ok());
    std::thread zero([&] {
      auto all_reduce = OrderedAllReduce::Connect(OptionsOf(ranks, 0), std::move(listeners[0]), endpoints);
      ASSERT_TRUE(all_reduce.ok()) << all_reduce.status();
      EXPECT_TRUE((*all_reduce)->ExchangeVerdicts("0").ok());
    });
    auto all_reduce = OrderedAllReduce::Connect(OptionsOf(ranks, 1), std::move(listeners[1]), endpoints);
    ASSERT_TRUE(all_reduce.ok()) << all_reduce.status();
    EXPECT_TRUE((*all_reduce)->ExchangeVerdicts("1").ok());
    zero.join();
  }
}

TEST(Connect, APeerThatIsNoLongerThereIsNamed) {
  const RanksOptions ranks{.runs = {{0, 1}, {1, 2}}, .layout = SmallLayout()};
  std::vector<std::unique_ptr<Listener>> listeners = MakeListeners(ranks);
  const std::vector<Endpoint> endpoints = EndpointsOf(listeners);
  listeners[0].reset();
  const absl::Status connected = OrderedAllReduce::Connect(OptionsOf(ranks, 1), std::move(listeners[1]), endpoints).status();
  EXPECT_TRUE(absl::IsAborted(connected)) << connected;
  EXPECT_THAT(std::string(connected.message()), HasSubstr("connecting to rank 0"));
}

TEST(Connect, AnAddressThatPeersCannotReachIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Listener::Create({.host_id = "a", .bind_address = "0.0.0.0"}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Listener::Create({.host_id = "a", .bind_address = "192.0.2.1"}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Listener::Create({.host_id = "a", .bind_address = "no such host"}).status()));
}

}  // namespace
}  // namespace lockstep::allreduce
