#include "allreduce/listener.h"

#include <openssl/rand.h>

#include <array>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {

absl::StatusOr<std::unique_ptr<Listener>> Listener::Create(const Options& options) {
  ASSIGN_OR_RETURN(FileDescriptor tcp, ListenTcp(options.bind_address));
  Endpoint endpoint;
  endpoint.host_id = options.host_id;
  ASSIGN_OR_RETURN(endpoint.address, LocalAddress(tcp));
  if (absl::StartsWith(endpoint.address, "0.0.0.0:") || absl::StartsWith(endpoint.address, "[::]:")) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", options.bind_address, "\" is no address that peers can connect to; name one of this host's"));
  }
  std::array<char, 16> name{};
  if (RAND_bytes(reinterpret_cast<unsigned char*>(name.data()), name.size()) != 1) return absl::InternalError("no random bytes");
  endpoint.local_socket = absl::StrCat("lockstep-", absl::BytesToHexString({name.data(), name.size()}));
  ASSIGN_OR_RETURN(FileDescriptor local, ListenLocal(endpoint.local_socket));
  return std::unique_ptr<Listener>(new Listener(std::move(endpoint), std::move(tcp), std::move(local)));
}

Listener::Listener(Endpoint endpoint, FileDescriptor tcp, FileDescriptor local)
    : endpoint_(std::move(endpoint)), tcp_(std::move(tcp)), local_(std::move(local)) {}

}  // namespace lockstep::allreduce
