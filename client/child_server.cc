#include "client/child_server.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <sstream>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

// With no signal blocked or ignored, whatever this process does about its own.
absl::StatusOr<pid_t> Spawn(const std::string& program, const std::vector<std::string>& arguments, const std::string& log_path) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  const auto cleanup = absl::MakeCleanup([&] {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  });
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  sigset_t none;
  sigset_t all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), environ);
  if (error != 0) return ErrnoStatus(error, "cannot start", program);
  return pid;
}

std::vector<pid_t> ChildrenOfOurs() {
  std::vector<pid_t> children;
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task", error)) {
    const auto text = ReadFile(task.path() / "children");
    if (!text.ok()) continue;
    std::istringstream pids(*text);
    for (pid_t pid = 0; pids >> pid;) children.push_back(pid);
  }
  return children;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChildServer>> ChildServer::Start(const std::string& program, const std::vector<std::string>& arguments,
                                                                const std::string& log_path) {
  ASSIGN_OR_RETURN(const pid_t pid, Spawn(program, arguments, log_path));
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd < 0) {
    const int error = errno;
    kill(-pid, SIGKILL);
    waitpid(pid, nullptr, 0);
    return ErrnoStatus(error, "cannot watch the process of", program);
  }
  return std::unique_ptr<ChildServer>(new ChildServer(pid, pidfd, log_path));
}

ChildServer::~ChildServer() {
  Kill();
  WaitForEnd(absl::InfiniteDuration());
  close(pidfd_);
}

bool ChildServer::WaitForEnd(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    {
      absl::MutexLock lock(&mutex_);
      if (!reaped_) reaped_ = waitpid(pid_, &wait_status_, WNOHANG) == pid_;
      if (reaped_) return true;
    }
    const absl::Duration left = std::min(deadline - absl::Now(), absl::Hours(1));
    if (left <= absl::ZeroDuration()) return false;
    pollfd wanted = {pidfd_, POLLIN, 0};
    poll(&wanted, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
  }
}

void ChildServer::Stop(absl::Duration grace) {
  {
    absl::MutexLock lock(&mutex_);
    if (!reaped_) kill(pid_, SIGTERM);
  }
  if (WaitForEnd(grace)) return;
  Kill();
  WaitForEnd(absl::InfiniteDuration());
}

void ChildServer::Kill() {
  absl::MutexLock lock(&mutex_);
  if (!reaped_) kill(-pid_, SIGKILL);
}

std::string ChildServer::ending() {
  if (!WaitForEnd(absl::ZeroDuration())) return "";
  absl::MutexLock lock(&mutex_);
  if (WIFSIGNALED(wait_status_)) return absl::StrCat("signal ", WTERMSIG(wait_status_));
  return absl::StrCat("exit status ", WEXITSTATUS(wait_status_));
}

std::string LastLines(const std::string& path, size_t lines) {
  const auto text = ReadFile(path);
  if (!text.ok()) return "";
  std::vector<absl::string_view> all = absl::StrSplit(*text, '\n', absl::SkipEmpty());
  if (all.size() > lines) all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(lines));
  return absl::StrJoin(all, "\n");
}

void AdoptOrphans() { prctl(PR_SET_CHILD_SUBREAPER, 1); }

void ReapOrphans(absl::Duration grace) {
  const absl::Time deadline = absl::Now() + grace;
  bool killed = false;
  for (;;) {
    const pid_t pid = waitpid(-1, nullptr, WNOHANG);
    if (pid < 0) return;
    if (pid > 0) continue;
    if (absl::Now() >= deadline && !killed) {
      for (const pid_t child : ChildrenOfOurs()) kill(child, SIGKILL);
      killed = true;
    } else if (absl::Now() >= deadline + grace) {
      return;
    }
    absl::SleepFor(absl::Milliseconds(2));
  }
}

}  // namespace lockstep
