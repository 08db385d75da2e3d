#pragma once
// What tests need to run other programs: a process that does not outlive its owner, a folder neither (base/test_folder.h), and patience.
// Not thread-safe.

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/test_folder.h"

namespace lockstep {

class TestProcess {
 public:
  // `words`: the program (looked for in PATH) and its arguments. `environment`: added to ours, less our LOCKSTEP_ variables. What it
  // writes goes to the file `log`.
  TestProcess(std::vector<std::string> words, std::vector<std::string> environment, std::string log);
  // Kills it, if it runs, and waits. Shows its log if the test has failed.
  ~TestProcess();
  TestProcess(const TestProcess&) = delete;
  TestProcess& operator=(const TestProcess&) = delete;

  pid_t pid() const { return pid_; }
  void Signal(int signal) const;
  // Its exit code, or minus the signal that it died of; nothing if it still runs after `timeout`.
  std::optional<int> Wait(absl::Duration timeout = absl::Seconds(20));
  // What it wrote so far.
  std::string Log() const;

 private:
  const std::string log_;
  pid_t pid_ = -1;
  std::optional<int> ended_;
};

// Waits, looking every few milliseconds, for what has no event to wait for. False after `patience`.
bool Eventually(const std::function<bool()>& condition, absl::Duration patience = absl::Seconds(20));
// A process that is gone, or only waits to be reaped.
bool IsGone(pid_t pid);

}  // namespace lockstep
