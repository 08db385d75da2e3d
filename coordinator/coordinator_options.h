#pragma once
// How long the coordinator waits for whom. Plain data.

#include <cstdint>
#include <string>

#include "absl/time/time.h"

namespace lockstep {

struct CoordinatorOptions {
  std::string version;
  // A worker that is not heard of for so long is lost, and its trainers with it.
  absl::Duration lease = absl::Seconds(10);
  absl::Duration heartbeat = absl::Seconds(1);
  // How long ranks wait for each other before their generation is broken.
  absl::Duration rendezvous_timeout = absl::Minutes(5);
  // How long trainers may take to the step boundary at which they see that they are cancelled.
  absl::Duration cancel_timeout = absl::Minutes(2);
  // Restarts of a job without a newly committed step.
  uint32_t most_restarts = 3;
};

}  // namespace lockstep
