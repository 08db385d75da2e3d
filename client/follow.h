#pragma once
// Watching a job for people: events into the view, the progress and the step log. Not thread-safe.

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/coordinator_client.h"
#include "client/progress.h"
#include "client/run_view.h"
#include "client/step_log.h"

namespace lockstep {

// Until the job has ended. `step_log` may be null.
absl::Status Follow(CoordinatorClient& client, const std::string& job_id, uint64_t after_sequence, RunView& view, Progress& progress,
                    StepLog* step_log);

// Describe, again while the coordinator cannot be reached, for about a minute.
absl::StatusOr<v1::JobStatus> DescribeSurely(CoordinatorClient& client, const std::string& job_id);

}  // namespace lockstep
