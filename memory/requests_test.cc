#include "memory/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "base/test_folder.h"
#include "memory/block_pool.h"
#include "memory/place.h"

namespace lockstep::memory {
namespace {

using testing::ElementsAre;
using testing::Pair;

constexpr int64_t kMiB = 1 << 20;

// Which of `count` requests in a step of rank 1 are refused.
std::vector<int> RefusedOf(BlockPool& pool, Requests& requests, uint64_t step, int count) {
  const ScopedRequests scope(&requests);
  requests.Begin(1, step);
  std::vector<int> refused;
  for (int i = 1; i <= count; ++i) {
    void* block = pool.Allocate(100);
    if (block == nullptr) refused.push_back(i);
    pool.Free(block);
  }
  return refused;
}

TEST(Requests, OneOfAStepFailsOnceThoughTheStepIsTakenAgain) {
  BlockPool pool({});
  Requests requests;
  SetFailingRequests({{1, 7, 3}, {1, 7, 5}, {0, 7, 1}, {1, 8, 2}});
  EXPECT_THAT(RefusedOf(pool, requests, 6, 10), ElementsAre());
  EXPECT_THAT(RefusedOf(pool, requests, 7, 4), ElementsAre(3));
  EXPECT_THAT(RefusedOf(pool, requests, 7, 10), ElementsAre(5));
  EXPECT_THAT(RefusedOf(pool, requests, 7, 10), ElementsAre());
  EXPECT_THAT(RefusedOf(pool, requests, 8, 10), ElementsAre(2));
  EXPECT_EQ(FailingRequestsLeft(), 1u) << "another rank's";
  EXPECT_EQ(pool.GetUsage().refused, 3);
  SetFailingRequests({});
}

TEST(Requests, TheEnvironmentSaysWhichFailOnceInAllProcesses) {
  const TestFolder folder;
  const auto refused = [] {
    const pid_t child = fork();
    if (child == 0) {
      // The test's own process has read the environment already.
      execl("/proc/self/exe", "memory_test", "--gtest_filter=Requests.DISABLED_RefusedInAProcess", "--gtest_also_run_disabled_tests",
            nullptr);
      _exit(100);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  };
  setenv("LOCKSTEP_FAIL_ALLOCATION", "1:7:3,0:7:4,1:7:5,nonsense", 1);
  setenv("LOCKSTEP_FAILPOINT_DIR", folder.path().c_str(), 1);
  EXPECT_EQ(refused(), 2);
  EXPECT_EQ(refused(), 0);
  unsetenv("LOCKSTEP_FAIL_ALLOCATION");
  unsetenv("LOCKSTEP_FAILPOINT_DIR");
}

// Not a test: what the one above starts.
TEST(Requests, DISABLED_RefusedInAProcess) {
  BlockPool pool({});
  Requests requests;
  _exit(static_cast<int>(RefusedOf(pool, requests, 7, 10).size()));
}

TEST(Requests, OthersMayFailWithoutAnyonesStepBeingBad) {
  BlockPool pool({.limit_bytes = kMiB});
  Requests requests;
  const ScopedRequests scope(&requests);
  std::thread([&pool] { EXPECT_EQ(pool.Allocate(2 * kMiB), nullptr); }).join();
  EXPECT_EQ(requests.TakeRefused().count, 0);
  EXPECT_EQ(pool.GetUsage().refused, 1);
}

TEST(Requests, TheFirstRefusalSaysWhatWasLiveThen) {
  BlockPool pool({.limit_bytes = 8 * kMiB});
  Requests requests;
  const ScopedRequests scope(&requests);
  const ScopedCategory category(Category::kActivations);
  const ScopedPhase phase(Phase::kForward);
  std::vector<void*> blocks;
  for (const char* layer : {"conv1", "conv2", "conv1"}) {
    SetLayer(layer);
    blocks.push_back(pool.Allocate(2 * kMiB));
  }
  {
    const ScopedCategory parameters(Category::kParameters);
    SetLayer({});
    blocks.push_back(pool.Allocate(kMiB / 2));
  }
  SetPhase(Phase::kBackward);
  SetLayer("conv2");
  EXPECT_EQ(pool.Allocate(3 * kMiB), nullptr);
  SetPhase(Phase::kUpdate);
  EXPECT_EQ(pool.Allocate(9 * kMiB), nullptr);
  const Requests::Refused refused = requests.TakeRefused();
  EXPECT_EQ(refused.count, 2);
  ASSERT_TRUE(refused.first.has_value());
  EXPECT_EQ(refused.first->bytes, 3 * kMiB);
  EXPECT_EQ(refused.first->live[Category::kActivations], 6 * kMiB);
  EXPECT_EQ(refused.first->missing_bytes, kMiB * 3 / 2);
  EXPECT_THAT(refused.first->layers, ElementsAre(Pair("conv1", 4 * kMiB), Pair("conv2", 2 * kMiB)));
  EXPECT_EQ(refused.first->Text(), "backward, before conv2 asked for 3.0 MiB of activations with 6.5 MiB in use of 8.0 MiB");
  EXPECT_EQ(refused.first->LiveText(1), "activations 6.0 MiB, parameters 512.0 KiB; largest layers: conv1 4.0 MiB");
  EXPECT_EQ(pool.LastRefusal()->Text(), "update asked for 9.0 MiB of activations with 6.5 MiB in use of 8.0 MiB");
  EXPECT_FALSE(requests.TakeRefused().first.has_value());
  for (void* block : blocks) pool.Free(block);
}

}  // namespace
}  // namespace lockstep::memory
