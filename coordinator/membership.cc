#include "coordinator/membership.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

constexpr absl::Duration kLongestPause = absl::Minutes(5);
// "checkpoint-000000500.safetensors"
constexpr std::string_view kCheckpointPrefix = "checkpoint-";
constexpr size_t kStepDigits = 9;

}  // namespace

absl::StatusOr<Ask> AskFor(const JobEntry& job) {
  ASSIGN_OR_RETURN(Ask ask, AskOf(job.record.job, *job.record.plan));
  if (job.record.scale) {
    ask.min = std::clamp(job.record.scale->min(), 1u, ask.virtual_replicas);
    ask.max = std::clamp(job.record.scale->max(), ask.min, ask.virtual_replicas);
  }
  return ask;
}

bool IsElastic(const JobEntry& job) {
  const v1::Job& what = job.record.job;
  return job.Active() && job.record.state == v1::RUNNING && what.kind() != v1::Job::EVALUATE && what.kind() != v1::Job::PREDICT &&
         !job.record.cancel_wanted;
}

bool AllStepsDone(const JobEntry& job) { return job.record.total_steps > 0 && job.latest && job.latest->step() >= job.record.total_steps; }

uint64_t CheckpointStep(const JobEntry& job) {
  const std::vector<std::string> names = job.Checkpoints();
  uint64_t step = 0;
  if (names.empty() || !absl::SimpleAtoi(names.front().substr(kCheckpointPrefix.size(), kStepDigits), &step)) return 0;
  return step;
}

namespace {

// " (a.png b.png …)", where a trainer has told the samples of this step.
std::string InHand(const JobEntry& job, uint64_t step) {
  const std::string prefix = absl::StrCat("step ", step, ": ");
  return job.in_hand.starts_with(prefix) ? absl::StrCat(" (", job.in_hand.substr(prefix.size()), ")") : "";
}

}  // namespace

bool CountDeath(const JobEntry& job, const std::string& cause, uint32_t most, Draft& draft) {
  const uint64_t step = job.latest ? job.latest->step() : 0;
  draft.record.deaths = step > job.record.death_step ? 1 : job.record.deaths + 1;
  draft.record.death_step = step;
  if (draft.record.deaths <= most) return false;
  const std::string what = job.record.state == v1::PLANNING
                               ? absl::StrCat("planning broke off ", draft.record.deaths, " times; the last time: ")
                               : absl::StrCat(draft.record.deaths, " generations broke off in step ", step + 1, InHand(job, step + 1),
                                              ", and none got further; the last one: ");
  draft.MoveTo(v1::FAILED, absl::StrCat(what, cause), v1::TRAINING_FAILED);
  return true;
}

absl::Duration PauseAfter(uint32_t failures) {
  if (failures == 0) return absl::ZeroDuration();
  return std::min(((1 << std::min(failures - 1, 16u)) - 1) * absl::Seconds(1), kLongestPause);
}

std::set<uint32_t> UnreachableRanks(const Generation& generation) {
  const auto accused = std::max_element(generation.not_heard.begin(), generation.not_heard.end(),
                                        [](const auto& a, const auto& b) { return a.second <= b.second && a.first < b.first; });
  if (accused == generation.not_heard.end() || accused->first >= generation.record.members.size()) return {};
  const std::string& worker = generation.record.members[accused->first].member.worker_id();
  std::set<uint32_t> of_worker;
  size_t living = 0;
  for (const Seat& seat : generation.Living()) {
    ++living;
    if (seat.record.member.worker_id() == worker) of_worker.insert(seat.record.member.rank());
  }
  return of_worker.size() < living ? of_worker : std::set<uint32_t>{accused->first};
}

std::string Replicas(size_t count) { return absl::StrCat(count, count == 1 ? " replica" : " replicas"); }

std::string Ranks(const std::set<uint32_t>& ranks) {
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(ranks, ", "));
}

}  // namespace lockstep
