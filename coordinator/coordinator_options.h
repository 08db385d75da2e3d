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
  // A trainer that gives no sign of life for so long is dead, for its worker and for its peers.
  absl::Duration silence = absl::Seconds(10);
  // How long ranks wait for each other before those that did not come are given up.
  absl::Duration rendezvous_timeout = absl::Minutes(5);
  // How long trainers may take to the step boundary at which they see that they are cancelled.
  absl::Duration cancel_timeout = absl::Minutes(2);
  // Deaths of a job's trainers without a newly committed step.
  uint32_t most_deaths = 5;
};

}  // namespace lockstep
