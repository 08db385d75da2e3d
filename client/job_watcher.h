#pragma once
// Follows a job to its end over however many connections that takes: every event once, in order. Not thread-safe.

#include <functional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "client/coordinator_client.h"

namespace lockstep {

struct WatchOptions {
  // Pauses between connections: the first one, doubled each time up to the longest.
  absl::Duration first_pause = absl::Milliseconds(100);
  absl::Duration longest_pause = absl::Seconds(5);
  // How long an outage may last before it is given up.
  absl::Duration patience = absl::Minutes(10);
  // A stream that lasted so long was connected, though no event came: what follows is a new outage.
  absl::Duration connected_after = absl::Seconds(30);
};

class JobWatcher {
 public:
  // `client` and `clock` must outlive it. Begins after `after_sequence`.
  JobWatcher(CoordinatorClient& client, std::string job_id, uint64_t after_sequence, const WatchOptions& options, const Clock& clock);

  // Calls `event` for each, until the job has ended and its stream with it: OK. `message` gets what people should know of the
  // connection: that it was lost, and that it is back. Errors: those that are not to be retried; the last one when patience is
  // out; `event`'s own; DataLoss: the coordinator left events out.
  absl::Status Run(absl::FunctionRef<absl::Status(const v1::Event&)> event, absl::FunctionRef<void(const std::string&)> message);

  uint64_t last_sequence() const { return last_sequence_; }

 private:
  CoordinatorClient& client_;
  const std::string job_id_;
  const WatchOptions options_;
  const Clock& clock_;
  uint64_t last_sequence_;
};

}  // namespace lockstep
