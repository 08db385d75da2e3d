#pragma once
// What of a progress report is new, and whether what is not new says the same as before (law 1, as the coordinator can check
// it). Pure functions.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/cluster.pb.h"

namespace lockstep {

// Events for the steps after `latest` and the epochs after `latest_epoch`, an epoch behind the step that ended it. `known` are
// the durable records of the report's steps up to `latest`. DataLoss: a step that was reported before has another state or
// other samples now. InvalidArgument: a step is missing, or the steps are not in order.
absl::StatusOr<std::vector<v1::Event>> NewEvents(const v1::ProgressReport& report, const std::vector<v1::StepRecord>& known,
                                                 uint64_t latest, uint32_t latest_epoch);

}  // namespace lockstep
