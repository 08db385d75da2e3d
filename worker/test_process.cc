#include "worker/test_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"

extern char** environ;

namespace lockstep {
namespace {

constexpr absl::Duration kBetweenLooks = absl::Milliseconds(5);

std::vector<char*> Pointers(std::vector<std::string>* strings) {
  std::vector<char*> pointers;
  for (std::string& one : *strings) pointers.push_back(one.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

bool Eventually(const std::function<bool()>& condition, absl::Duration patience) {
  const absl::Time deadline = absl::Now() + patience;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(kBetweenLooks);
  }
  return true;
}

bool IsGone(pid_t pid) {
  const absl::StatusOr<std::string> stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  // "123 (name) Z …": the state follows the last parenthesis.
  return !stat.ok() || absl::StartsWith(stat->substr(stat->rfind(')') + 1), " Z");
}

TestProcess::TestProcess(std::vector<std::string> words, std::vector<std::string> environment, std::string log) : log_(std::move(log)) {
  for (char** one = environ; *one != nullptr; ++one) {
    if (!absl::StartsWith(*one, "LOCKSTEP_")) environment.emplace_back(*one);
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  const int error = posix_spawnp(&pid_, words.front().c_str(), &actions, nullptr, Pointers(&words).data(), Pointers(&environment).data());
  EXPECT_EQ(error, 0) << "cannot run " << words.front();
  posix_spawn_file_actions_destroy(&actions);
}

TestProcess::~TestProcess() {
  if (testing::Test::HasFailure()) std::cerr << "---- " << log_ << ":\n" << Log();
  if (ended_.has_value() || pid_ <= 0) return;
  Signal(SIGKILL);
  Wait();
}

void TestProcess::Signal(int signal) const { kill(pid_, signal); }

std::optional<int> TestProcess::Wait(absl::Duration timeout) {
  if (ended_.has_value()) return ended_;
  const absl::Time deadline = absl::Now() + timeout;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (absl::Now() > deadline) return std::nullopt;
    absl::SleepFor(kBetweenLooks);
  }
  ended_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return ended_;
}

std::string TestProcess::Log() const { return ReadFile(log_).value_or(""); }

}  // namespace lockstep
