#pragma once
// Channels to the coordinator. Every call on one carries "authorization: Bearer TOKEN". Thread-safe: no state.

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "absl/time/time.h"

namespace lockstep {

struct ChannelOptions {
  std::string token;
  // PEM of who signed the server's certificate; empty: no TLS.
  std::string ca_certificate;
  // The name in the server's certificate, if it is not the address's host.
  std::string server_name;
};

// Connects when first used, and again by itself whenever the connection is lost (after 0.1 s, then up to 2 s).
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const ChannelOptions& options);

// The call fails with DeadlineExceeded if it has not ended after `timeout`.
void SetDeadline(grpc::ClientContext* context, absl::Duration timeout);

}  // namespace lockstep
