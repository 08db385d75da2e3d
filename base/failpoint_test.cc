#include "base/failpoint.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/test_folder.h"

namespace lockstep {
namespace {

// What a process that comes by `times` times does: its wait status, or how often it saw an error as the exit status.
int ComeBy(const TestFolder& folder, const char* points, int times) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("LOCKSTEP_FAILPOINTS", points, 1);
    setenv("LOCKSTEP_FAILPOINT_DIR", folder.path().c_str(), 1);
    int errors = 0;
    for (int i = 0; i < times; ++i) errors += LOCKSTEP_FAILPOINT("here") ? 1 : 0;
    _exit(errors);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST(Failpoint, FiresAtItsTimeAndAsOftenAsAllProcessesMay) {
  const TestFolder folder;
  EXPECT_EQ(WEXITSTATUS(ComeBy(folder, "there=kill,elsewhere=error", 5)), 0);
  EXPECT_EQ(WEXITSTATUS(ComeBy(folder, "here=error@3x2", 2)), 0) << "its time has not come";
  EXPECT_EQ(WEXITSTATUS(ComeBy(folder, "here=error@3x2", 3)), 1);
  EXPECT_EQ(WEXITSTATUS(ComeBy(folder, "here=error@3x2", 9)), 1) << "one was left";
  EXPECT_EQ(WEXITSTATUS(ComeBy(folder, "here=error@3x2", 9)), 0);
}

TEST(Failpoint, KillsTheProcessThatComesBy) {
  const TestFolder folder;
  const int status = ComeBy(folder, "here=kill@2", 5);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_EQ(WEXITSTATUS(ComeBy(folder, "here=kill@2", 5)), 0) << "once in all";
}

TEST(Failpoint, IsNothingWhereNoneIsSet) { EXPECT_FALSE(LOCKSTEP_FAILPOINT("here")); }

}  // namespace
}  // namespace lockstep
