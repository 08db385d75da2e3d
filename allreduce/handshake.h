#pragma once
// The first words on a new connection: both ends prove that they hold the generation's token (HMAC-SHA256 over both ends'
// random numbers; the token itself never travels), and that they mean the same generation, membership and layout.
// docs/allreduce.md has the bytes. Not encrypted.

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "allreduce/socket.h"

namespace lockstep::allreduce {

struct Identity {
  uint64_t generation = 0;
  uint64_t fingerprint = 0;  // of membership and layout
  int rank = 0;
  int ranks = 0;
};

// The connecting end's part. PermissionDenied: the tokens differ. FailedPrecondition: another generation or protocol.
// InvalidArgument: another membership or layout.
absl::Status Introduce(const FileDescriptor& socket, const Identity& mine, int peer, const std::string& token, absl::Time deadline);

// The accepting end's part: the rank of who connected. `awaited` says whether a rank has yet to connect, this way. The other
// end is told why it is refused, with the same codes as above.
absl::StatusOr<int> Welcome(const FileDescriptor& socket, const Identity& mine, const std::string& token,
                            absl::FunctionRef<bool(int rank)> awaited, absl::Time deadline);

}  // namespace lockstep::allreduce
