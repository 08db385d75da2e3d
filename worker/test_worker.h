#pragma once
// A lockstep-worker process for tests. Not thread-safe.

#include <string>
#include <vector>

#include "worker/test_process.h"

namespace lockstep {

class TestWorker : public TestProcess {
 public:
  // With the fake trainer and metrics on any free port, unless `more` says otherwise. Makes its state folder; its log and its ready
  // file are in there.
  TestWorker(const std::string& coordinator, const std::string& state_folder, const std::vector<std::string>& more = {},
             const std::string& token = "test-token");

  // HOST:PORT of its metrics, from its ready file; waits for it.
  std::string Metrics() const;

 private:
  const std::string ready_file_;
};

}  // namespace lockstep
