#include "coordinator/progress.h"

#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

absl::Status CheckSame(const v1::StepRecord& before, const v1::StepRecord& now) {
  const auto violated = [&](absl::string_view what, absl::string_view was, absl::string_view is) {
    return absl::DataLossError(absl::StrCat("same bits violated at step ", now.step(), ": ", what, " is ", is, " in generation ",
                                            now.generation(), ", and was ", was, " in generation ", before.generation()));
  };
  if (before.sample_digest() != now.sample_digest()) {
    return violated("the digest of its samples", absl::StrCat(absl::Hex(before.sample_digest(), absl::kZeroPad16)),
                    absl::StrCat(absl::Hex(now.sample_digest(), absl::kZeroPad16)));
  }
  if (!before.state_hash().empty() && !now.state_hash().empty() && before.state_hash() != now.state_hash()) {
    return violated("the state's hash", before.state_hash(), now.state_hash());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<v1::Event>> NewEvents(const v1::ProgressReport& report, const std::vector<v1::StepRecord>& known,
                                                 uint64_t latest, uint32_t latest_epoch) {
  std::unordered_map<uint64_t, const v1::StepRecord*> before;
  for (const v1::StepRecord& step : known) before.emplace(step.step(), &step);
  std::vector<v1::Event> events;
  int epoch = 0;
  // Epochs that ended before step `until` began.
  const auto add_epochs = [&](uint64_t until) {
    for (; epoch < report.epochs_size() && report.epochs(epoch).step() < until; ++epoch) {
      if (report.epochs(epoch).epoch() <= latest_epoch) continue;
      latest_epoch = report.epochs(epoch).epoch();
      *events.emplace_back().mutable_epoch() = report.epochs(epoch);
    }
  };
  for (const v1::StepRecord& step : report.steps()) {
    add_epochs(step.step());
    if (const auto found = before.find(step.step()); found != before.end()) {
      RETURN_IF_ERROR(CheckSame(*found->second, step));
      continue;
    }
    if (step.step() != latest + 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("step ", step.step(), " was reported after step ", latest, "; step ", latest + 1, " is missing"));
    }
    latest = step.step();
    *events.emplace_back().mutable_step() = step;
  }
  add_epochs(UINT64_MAX);
  return events;
}

}  // namespace lockstep
