#include "client/job_watcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/run_view.h"
#include "rpc/status.h"

namespace lockstep {

JobWatcher::JobWatcher(CoordinatorClient& client, std::string job_id, uint64_t after_sequence, const WatchOptions& options,
                       const Clock& clock)
    : client_(client), job_id_(std::move(job_id)), options_(options), clock_(clock), last_sequence_(after_sequence) {}

absl::Status JobWatcher::Run(absl::FunctionRef<absl::Status(const v1::Event&)> event, absl::FunctionRef<void(const std::string&)> message) {
  bool ended = false;
  bool lost = false;
  absl::Duration pause = options_.first_pause;
  absl::Time give_up = clock_.Now() + options_.patience;
  for (;;) {
    const absl::Time began = clock_.Now();
    absl::Status taken;
    const absl::Status status = client_.Watch(job_id_, last_sequence_, [&](const v1::Event& next) {
      if (next.sequence() <= last_sequence_) return absl::OkStatus();
      if (next.sequence() != last_sequence_ + 1) {
        return taken = absl::DataLossError(
                   absl::StrCat("the coordinator left out events ", last_sequence_ + 1, " to ", next.sequence() - 1, " of job ", job_id_));
      }
      if (lost) message("connected to the coordinator again");
      lost = false;
      pause = options_.first_pause;
      give_up = clock_.Now() + options_.patience;
      last_sequence_ = next.sequence();
      ended = ended || (next.has_state() && HasEnded(next.state().state()));
      return taken = event(next);
    });
    RETURN_IF_ERROR(taken);
    if (status.ok() && ended) return absl::OkStatus();
    if (!status.ok() && !IsRetryable(status)) return status;
    if (clock_.Now() - began >= options_.connected_after) {
      lost = false;
      pause = options_.first_pause;
      give_up = clock_.Now() + options_.patience;
    }
    if (clock_.Now() >= give_up) {
      return status.ok() ? absl::UnavailableError(absl::StrCat("the coordinator says nothing more of job ", job_id_)) : status;
    }
    if (!lost && !status.ok()) {
      message(absl::StrCat(std::string(status.message()), "; the job goes on, trying again"));
      lost = true;
    }
    RETURN_IF_ERROR(client_.Sleep(pause));
    pause = std::min(2 * pause, options_.longest_pause);
  }
}

}  // namespace lockstep
