#pragma once
// A gRPC server as ours are: a token on every call, TLS by files, health and reflection beside the services (those two tell
// nothing of jobs, and answer without a token). Thread-safe.

#include <grpcpp/impl/codegen/service_type.h>
#include <grpcpp/server.h>
#include <grpcpp/server_context.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace lockstep {

struct ServerOptions {
  // "127.0.0.1:7070"; port 0: any free one.
  std::string listen;
  std::string token;
  // PEM; both or none.
  std::string tls_certificate, tls_key;
  // Allows a listener beyond loopback without a token and TLS.
  bool insecure = false;
};

// True for 127.0.0.0/8, [::1] and localhost.
bool IsLoopback(const std::string& address);

// Unauthenticated unless the call carries "authorization: Bearer TOKEN". Takes as long for any wrong token. Every method of
// every service calls it first.
grpc::Status Authorize(const grpc::ServerContext& context, const std::string& token);

class RpcServer {
 public:
  // InvalidArgument: beyond loopback without token and TLS, or an address that is none. Unavailable: the port is in use. The
  // services must outlive the server.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const ServerOptions& options, const std::vector<grpc::Service*>& services);
  ~RpcServer();

  // With the port that was bound.
  const std::string& address() const { return address_; }

  // No new calls; those under way may go on for `grace`, then they are cancelled. Waits for their handlers.
  void Shutdown(absl::Duration grace);

 private:
  RpcServer() = default;

  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace lockstep
