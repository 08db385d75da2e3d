#include "client/follow.h"

#include "base/status_macros.h"
#include "client/job_watcher.h"
#include "rpc/status.h"

namespace lockstep {

absl::Status Follow(CoordinatorClient& client, const std::string& job_id, uint64_t after_sequence, RunView& view, Progress& progress,
                    StepLog* step_log) {
  const RealClock clock;
  JobWatcher watcher(client, job_id, after_sequence, WatchOptions(), clock);
  return watcher.Run(
      [&](const v1::Event& event) {
        view.Apply(event);
        if (step_log != nullptr && event.has_step()) step_log->Append(event.step());
        progress.Show(event, view);
        return absl::OkStatus();
      },
      [&](const std::string& message) { progress.Say(message); });
}

absl::StatusOr<v1::JobStatus> DescribeSurely(CoordinatorClient& client, const std::string& job_id) {
  absl::StatusOr<v1::JobStatus> status = client.Describe(job_id);
  for (int attempt = 0; attempt < 60 && IsRetryable(status.status()); ++attempt) {
    RETURN_IF_ERROR(client.Sleep(absl::Seconds(1)));
    status = client.Describe(job_id);
  }
  return status;
}

}  // namespace lockstep
