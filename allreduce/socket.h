#pragma once
// Sockets, and whole messages over them before a deadline: what setting up a connection needs. Collectives do their own waiting.
// Thread-safety: none; one thread a socket.

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/file_descriptor.h"

namespace lockstep::allreduce {

// "WHAT: reason" for an errno of a socket call. Aborted if the other end is gone, else Unavailable.
absl::Status SocketError(int error, std::string_view what);

// TCP on an address without a port ("127.0.0.1", "::1"); the kernel picks the port. InvalidArgument if it is none of this
// host's.
absl::StatusOr<FileDescriptor> ListenTcp(const std::string& address);
// "127.0.0.1:43211", "[::1]:43211".
absl::StatusOr<std::string> LocalAddress(const FileDescriptor& socket);
// Sequenced packets on an abstract name.
absl::StatusOr<FileDescriptor> ListenLocal(const std::string& name);

// All sockets returned are non-blocking. Aborted: nobody listens there. DeadlineExceeded.
absl::StatusOr<FileDescriptor> ConnectTcp(const std::string& address, absl::Time deadline);
absl::StatusOr<FileDescriptor> ConnectLocal(const std::string& name, absl::Time deadline);
// From whichever of the two has a connection waiting first.
struct Accepted {
  FileDescriptor socket;
  bool local = false;
};
absl::StatusOr<Accepted> Accept(const FileDescriptor& tcp, const FileDescriptor& local, absl::Time deadline);

// Exactly these bytes, as one packet on local sockets. Aborted if the other end closed; DeadlineExceeded.
absl::Status SendAll(const FileDescriptor& socket, std::span<const std::byte> bytes, absl::Time deadline);
absl::Status ReceiveAll(const FileDescriptor& socket, std::span<std::byte> bytes, absl::Time deadline);

// A descriptor over a local socket (SCM_RIGHTS). DataLoss if a packet came without one.
absl::Status SendDescriptor(const FileDescriptor& socket, const FileDescriptor& descriptor, absl::Time deadline);
absl::StatusOr<FileDescriptor> ReceiveDescriptor(const FileDescriptor& socket, absl::Time deadline);

}  // namespace lockstep::allreduce
