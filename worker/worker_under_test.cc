#include "worker/worker_under_test.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"

extern char** environ;

namespace lockstep {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string path = std::filesystem::temp_directory_path() / "lockstep-worker-test.XXXXXX";
  if (mkdtemp(path.data()) == nullptr) ADD_FAILURE() << "cannot make " << path;
  path_ = path;
}

TemporaryFolder::~TemporaryFolder() { std::filesystem::remove_all(path_); }

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

bool IsGone(pid_t pid) {
  const absl::StatusOr<std::string> stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
  // "123 (name) Z …": the state follows the last parenthesis.
  return !stat.ok() || absl::StartsWith(stat->substr(stat->rfind(')') + 1), " Z");
}

WorkerUnderTest::WorkerUnderTest(const std::string& coordinator, const std::string& state_folder, const std::vector<std::string>& more,
                                 const std::string& token)
    : state_folder_(state_folder) {
  std::filesystem::create_directories(state_folder);
  std::filesystem::remove(state_folder + "/ready");
  std::vector<std::string> words = {LOCKSTEP_WORKER_PROGRAM, "--coordinator",        coordinator, "--state-dir", state_folder,
                                    "--ready-file",          state_folder + "/ready"};
  const auto add_unless_given = [&](const std::string& flag, const std::string& value) {
    for (const std::string& word : more) {
      if (word == flag) return;
    }
    words.insert(words.end(), {flag, value});
  };
  add_unless_given("--trainer", LOCKSTEP_FAKE_TRAINER);
  add_unless_given("--metrics", "127.0.0.1:0");
  words.insert(words.end(), more.begin(), more.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::string variable = "LOCKSTEP_TOKEN=" + token;
  std::vector<char*> environment = {variable.data()};
  for (char** one = environ; *one != nullptr; ++one) {
    if (!absl::StartsWith(*one, "LOCKSTEP_")) environment.push_back(*one);
  }
  environment.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, (state_folder + "/log").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  EXPECT_EQ(posix_spawn(&pid_, LOCKSTEP_WORKER_PROGRAM, &actions, nullptr, arguments.data(), environment.data()), 0);
  posix_spawn_file_actions_destroy(&actions);
}

WorkerUnderTest::~WorkerUnderTest() {
  if (testing::Test::HasFailure()) std::cerr << "---- the worker's log:\n" << Log();
  if (ended_.has_value()) return;
  Signal(SIGKILL);
  Wait();
}

void WorkerUnderTest::Signal(int signal) const { kill(pid_, signal); }

std::optional<int> WorkerUnderTest::Wait(absl::Duration timeout) {
  if (ended_.has_value()) return ended_;
  const absl::Time deadline = absl::Now() + timeout;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (absl::Now() > deadline) return std::nullopt;
    absl::SleepFor(absl::Milliseconds(5));
  }
  ended_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  return ended_;
}

std::string WorkerUnderTest::Log() const { return ReadFile(state_folder_ + "/log").value_or(""); }

std::string WorkerUnderTest::Metrics() const {
  EXPECT_TRUE(Eventually([this] { return std::filesystem::exists(state_folder_ + "/ready"); })) << "not ready";
  const nlohmann::json ready = nlohmann::json::parse(ReadFile(state_folder_ + "/ready").value_or("{}"));
  EXPECT_EQ(ready.value("pid", 0), pid_);
  EXPECT_NE(ready.value("worker_id", ""), "");
  return ready.value("metrics", "");
}

}  // namespace lockstep
