#pragma once
// An artifact as a stream, checked against what was recorded when it was stored. Thread-safe: no state.

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "coordinator/coordinator.h"
#include "coordinator/state_folder.h"

namespace lockstep {

// NotFound: there is no such job or artifact. FailedPrecondition: it is in storage of the job's own, at the path that is named. DataLoss:
// the file is not what was stored; then the last chunk is not sent. Otherwise as SendFile.
absl::Status SendArtifact(const Coordinator& coordinator, const StateFolder& folder, const std::string& job_id, const std::string& name,
                          absl::FunctionRef<bool(const v1::Chunk&)> write);

}  // namespace lockstep
