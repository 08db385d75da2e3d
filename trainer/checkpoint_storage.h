#pragma once
// Where a job's checkpoints are kept, as functions. Calls take how long they may. No libtorch.

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace lockstep {

struct CheckpointStorage {
  // Durable once OK. FailedPrecondition: this trainer's generation may store nothing any more.
  std::function<absl::Status(const std::string& name, const std::string& path)> store;
  std::function<absl::Status(const std::string& name, const std::string& path)> fetch;
};

}  // namespace lockstep
