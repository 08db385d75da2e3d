// Why a step does not end, as far as the replicas' beats tell.
#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "coordinator/membership.h"

namespace lockstep {
namespace {

constexpr char kWaitsForOthers[] = "reduce";
// Replicas that wait for others for so long are told of.
constexpr double kLongSeconds = 5;

std::string Doing(const v1::ReplicaStatus& replica) {
  return absl::StrFormat("rank %d on %s is in %s of step %d for %.1f s", replica.rank(), replica.worker_id(), replica.phase(),
                         replica.step(), replica.phase_seconds());
}

}  // namespace

void DescribeActivity(const JobEntry& job, v1::JobStatus& status) {
  std::vector<double> busy;
  for (int rank = 0; rank < status.replicas_size(); ++rank) {
    const v1::Activity& activity = job.generation->trainers[static_cast<size_t>(rank)].status.activity();
    v1::ReplicaStatus& replica = *status.mutable_replicas(rank);
    replica.set_phase(activity.phase());
    replica.set_step(activity.step());
    replica.set_phase_seconds(activity.phase_seconds());
    *replica.mutable_recent() = activity.recent();
    if (activity.busy_seconds() > 0) busy.push_back(activity.busy_seconds());
  }
  if (!job.Active()) return;
  if (busy.size() > 1) {
    std::sort(busy.begin(), busy.end());
    const double median = (busy[(busy.size() - 1) / 2] + busy[busy.size() / 2]) / 2;
    for (int rank = 0; rank < status.replicas_size(); ++rank) {
      status.mutable_replicas(rank)->set_slowness(job.generation->trainers[static_cast<size_t>(rank)].status.activity().busy_seconds() /
                                                  median);
    }
  }
  double longest = 0;
  std::vector<std::string> awaited;
  for (const v1::ReplicaStatus& replica : status.replicas()) {
    if (replica.phase() == kWaitsForOthers) longest = std::max(longest, replica.phase_seconds());
    if (replica.phase() != kWaitsForOthers && !replica.phase().empty()) awaited.push_back(Doing(replica));
  }
  if (longest < kLongSeconds) return;
  status.set_hang(awaited.empty() ? absl::StrFormat("all replicas are in the all-reduce, for %.1f s at most", longest)
                                  : absl::StrCat(absl::StrFormat("replicas wait for %.1f s: ", longest), absl::StrJoin(awaited, "; ")));
}

}  // namespace lockstep
