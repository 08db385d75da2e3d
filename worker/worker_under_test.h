#pragma once
// A lockstep-worker process for tests, with a state folder of its own. Not thread-safe.

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace lockstep {

// A new empty folder; removed with its owner.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class WorkerUnderTest {
 public:
  // With the fake trainer and metrics on any free port, unless `more` says otherwise. LOCKSTEP_TOKEN is `token`.
  WorkerUnderTest(const std::string& coordinator, const std::string& state_folder, const std::vector<std::string>& more = {},
                  const std::string& token = "test-token");
  // Kills it, if it runs.
  ~WorkerUnderTest();

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  // Its exit code, or minus the signal that it died of; nothing if it still runs after `timeout`.
  std::optional<int> Wait(absl::Duration timeout = absl::Seconds(20));
  // What it wrote to standard error so far.
  std::string Log() const;
  // HOST:PORT of its metrics, from its ready file; waits for it.
  std::string Metrics() const;

 private:
  const std::string state_folder_;
  pid_t pid_ = -1;
  std::optional<int> ended_;
};

// Waits, looking every few milliseconds, for what has no event to wait for. False after 20 seconds.
bool Eventually(const std::function<bool()>& condition);
// A process that is gone, or only waits to be reaped.
bool IsGone(pid_t pid);

}  // namespace lockstep
