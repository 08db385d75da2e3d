#pragma once
// A server program that this process started and ends: in a process group of its own (so that a terminal's Ctrl-C does not reach
// it), its output in a log file. Thread-safe. It must be started from a thread that lives as long as it, for it dies with that.

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace lockstep {

class ChildServer {
 public:
  // Standard output and error are appended to `log_path`. NotFound and the like name the program.
  static absl::StatusOr<std::unique_ptr<ChildServer>> Start(const std::string& program, const std::vector<std::string>& arguments,
                                                            const std::string& log_path);
  // Kills what is left.
  ~ChildServer();

  // Waits up to `timeout` for its end; true once it has ended.
  bool WaitForEnd(absl::Duration timeout);
  // SIGTERM; after `grace` SIGKILL to the whole group. Returns once it is reaped.
  void Stop(absl::Duration grace);
  // SIGKILL to the whole group, without waiting.
  void Kill();

  // Readable once the process has ended. Valid as long as this object.
  int pidfd() const { return pidfd_; }
  pid_t pid() const { return pid_; }
  // "exit status 2", "signal 9"; empty while it runs.
  std::string ending();
  const std::string& log_path() const { return log_path_; }

 private:
  ChildServer(pid_t pid, int pidfd, std::string log_path) : pid_(pid), pidfd_(pidfd), log_path_(std::move(log_path)) {}

  const pid_t pid_;
  const int pidfd_;
  const std::string log_path_;
  absl::Mutex mutex_;
  // Its number is no longer ours to signal.
  bool reaped_ ABSL_GUARDED_BY(mutex_) = false;
  int wait_status_ ABSL_GUARDED_BY(mutex_) = 0;
};

// The last `lines` lines of a file, or nothing if it cannot be read.
std::string LastLines(const std::string& path, size_t lines);

// Orphans of our children become children of ours (PR_SET_CHILD_SUBREAPER), so that ReapOrphans can wait for them.
void AdoptOrphans();
// Waits up to `grace` for every process below this one that is not a live ChildServer, then kills them.
// REQUIRES: no ChildServer is running.
void ReapOrphans(absl::Duration grace);

}  // namespace lockstep
