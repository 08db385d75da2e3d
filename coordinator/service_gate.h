#pragma once
// What every call of our services goes through: the token, the count by method and code, and absl::Status into gRPC's.
// Thread-safe.

#include <grpcpp/server_context.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "coordinator/metrics.h"
#include "rpc/server.h"
#include "rpc/status.h"

namespace lockstep {

class CallGate {
 public:
  CallGate(std::string token, RpcCounters& counters) : token_(std::move(token)), counters_(counters) {}

  // `handle` returns absl::Status; it runs only for callers with the token.
  template <typename Handle>
  grpc::Status Serve(const char* method, const grpc::ServerContext& context, Handle handle) {
    grpc::Status status = Authorize(context, token_);
    if (status.ok()) status = ToGrpcStatus(handle());
    counters_.Count(method, FromGrpcStatus(status).code());
    return status;
  }

 private:
  const std::string token_;
  RpcCounters& counters_;
};

}  // namespace lockstep
