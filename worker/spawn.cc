#include "worker/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

constexpr int kControlInChild = 3;
constexpr int kErrorInChild = 4;
// Above every descriptor that the child's are moved to.
constexpr int kFirstFree = 16;

struct ChildPlan {
  const char* program;
  const char* folder;
  char* const* arguments;
  int control;
  int output;
  int null;
  int error;
  pid_t parent;
};

// Runs in the child, which shares our memory until it execs: system calls only, and nothing here returns.
[[noreturn]] void BecomeTrainer(const ChildPlan& plan) {
  const int control = fcntl(plan.control, F_DUPFD, kFirstFree);
  const int output = fcntl(plan.output, F_DUPFD, kFirstFree);
  const int error = fcntl(plan.error, F_DUPFD, kFirstFree);
  const int null = fcntl(plan.null, F_DUPFD, kFirstFree);
  const bool moved = control >= 0 && output >= 0 && error >= 0 && null >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
                     dup2(output, STDOUT_FILENO) >= 0 && dup2(output, STDERR_FILENO) >= 0 && dup2(control, kControlInChild) >= 0 &&
                     dup3(error, kErrorInChild, O_CLOEXEC) >= 0 && close_range(kErrorInChild + 1, ~0U, 0) == 0;
  const bool ready = moved && setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && chdir(plan.folder) == 0;
  if (ready && getppid() == plan.parent) {
    signal(SIGPIPE, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    execv(plan.program, plan.arguments);
  }
  const int reason = errno;
  // If this fails the parent still sees exit status 127.
  [[maybe_unused]] const ssize_t written = write(moved ? kErrorInChild : plan.error, &reason, sizeof(reason));
  _exit(127);
}

// Its own function, so that no variable of the caller lives across the second return of vfork.
__attribute__((noinline)) pid_t Fork(const ChildPlan& plan) {
  const pid_t pid = vfork();
  if (pid == 0) BecomeTrainer(plan);
  return pid;
}

pid_t ForkWithSignalsBlocked(const ChildPlan& plan) {
  sigset_t all;
  sigset_t previous;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &previous);
  const pid_t pid = Fork(plan);
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  errno = error;
  return pid;
}

// When memory runs out, the kernel should take a trainer, which costs a step, before the worker or anybody else. As far as it lets us.
void MarkAsFirstToGo(pid_t pid) {
  const std::string path = absl::StrCat("/proc/", pid, "/oom_score_adj");
  const FileDescriptor file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  constexpr std::string_view kScore = "500";
  if (file.get() < 0 || write(file.get(), kScore.data(), kScore.size()) < 0) LOG_WARNING("pid=%d oom_score_adj=unchanged", pid);
}

// Errno of what kept the child from becoming the program; 0 if nothing did.
int ExecError(int fd) {
  int reason = 0;
  ssize_t count;
  do {
    count = read(fd, &reason, sizeof(reason));
  } while (count < 0 && errno == EINTR);
  return count == sizeof(reason) ? reason : 0;
}

}  // namespace

absl::StatusOr<ChildProcess> SpawnTrainer(const std::string& program, const std::string& folder) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return ErrnoStatus(errno, "cannot make a control socket for", program);
  ChildProcess child;
  child.control = FileDescriptor(pair[0]);
  const FileDescriptor control_theirs(pair[1]);
  if (pipe2(pair, O_CLOEXEC) != 0) return ErrnoStatus(errno, "cannot make an output pipe for", program);
  child.output = FileDescriptor(pair[0]);
  const FileDescriptor output_theirs(pair[1]);
  if (pipe2(pair, O_CLOEXEC) != 0) return ErrnoStatus(errno, "cannot make a pipe for", program);
  const FileDescriptor error_ours(pair[0]);
  FileDescriptor error_theirs(pair[1]);
  const FileDescriptor null(open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (null.get() < 0) return ErrnoStatus(errno, "cannot open", "/dev/null");
  // Only our ends: the trainer's are plain blocking ones.
  fcntl(child.control.get(), F_SETFL, O_NONBLOCK);
  fcntl(child.output.get(), F_SETFL, O_NONBLOCK);

  std::string name = program;
  std::string flag = "--control-fd";
  std::string value = std::to_string(kControlInChild);
  char* const arguments[] = {name.data(), flag.data(), value.data(), nullptr};
  child.pid = ForkWithSignalsBlocked(
      {program.c_str(), folder.c_str(), arguments, control_theirs.get(), output_theirs.get(), null.get(), error_theirs.get(), getpid()});
  if (child.pid < 0) return ErrnoStatus(errno, "cannot start a process for", program);
  error_theirs.Reset();
  if (const int error = ExecError(error_ours.get()); error != 0) {
    waitpid(child.pid, nullptr, 0);
    return ErrnoStatus(error, "cannot run", program);
  }
  child.pidfd = FileDescriptor(static_cast<int>(syscall(SYS_pidfd_open, child.pid, 0)));
  if (child.pidfd.get() < 0) {
    const int error = errno;
    kill(child.pid, SIGKILL);
    waitpid(child.pid, nullptr, 0);
    return ErrnoStatus(error, "cannot watch the process of", program);
  }
  MarkAsFirstToGo(child.pid);
  return child;
}

}  // namespace lockstep
