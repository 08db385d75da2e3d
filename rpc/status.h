#pragma once
// absl::Status over gRPC and back: the codes are the same numbers. Thread-safe: no state.

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace lockstep {

absl::Status FromGrpcStatus(const grpc::Status& status);
grpc::Status ToGrpcStatus(const absl::Status& status);

// Unavailable and DeadlineExceeded: the call may be made again. No other error may.
bool IsRetryable(const absl::Status& status);

}  // namespace lockstep
