#include "client/exit_code.h"

namespace lockstep {

ExitCode ExitCodeOf(v1::JobState state, v1::FailureKind failure) {
  if (state == v1::DONE) return kExitDone;
  if (state == v1::CANCELLED) return kExitInterrupted;
  switch (failure) {
    case v1::BAD_INPUT: return kExitBadInput;
    case v1::OUT_OF_MEMORY: return kExitOutOfMemory;
    default: return kExitFailed;
  }
}

ExitCode ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk: return kExitDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated: return kExitBadInput;
    case absl::StatusCode::kCancelled: return kExitInterrupted;
    default: return kExitFailed;
  }
}

}  // namespace lockstep
