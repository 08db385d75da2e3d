#pragma once
// A ledger as lines of JSON: one with what the job says, then one for each step and each end of an epoch. What `lockstep ledger --json`
// writes, and --from reads. docs/ledger.md.

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "dataset/index.h"
#include "ledger/ledger.h"
#include "proto/progress.pb.h"

namespace lockstep {

using TakeStep = std::function<void(const v1::StepRecord&)>;
using TakeEpoch = std::function<void(const v1::EpochRecord&)>;

nlohmann::ordered_json LedgerLine(const LedgerTerms& terms);
nlohmann::ordered_json LedgerLine(const v1::StepRecord& step, const dataset::Index& index);
nlohmann::ordered_json LedgerLine(const v1::EpochRecord& epoch);

// NotFound, InvalidArgument: naming the line.
absl::StatusOr<LedgerTerms> ReadLedgerTerms(const std::string& path);
absl::Status ReadLedgerFile(const std::string& path, const TakeStep& take_step, const TakeEpoch& take_epoch);

}  // namespace lockstep
