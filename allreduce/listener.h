#pragma once
// Where a rank waits for its peers while they connect: made before the rendezvous, so that its Endpoint can be published, and
// used up by OrderedAllReduce::Connect. One TCP port and one abstract Unix socket; both go with it.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "allreduce/rendezvous.h"
#include "allreduce/socket.h"

namespace lockstep::allreduce {

class Listener {
 public:
  struct Options {
    // Equal on all processes that can share memory.
    std::string host_id;
    // An address of this host that peers can reach, without a port: "127.0.0.1".
    std::string bind_address;
  };

  // InvalidArgument: not an address of this host, or the wildcard, which peers could not connect to.
  static absl::StatusOr<std::unique_ptr<Listener>> Create(const Options& options);

  const Endpoint& endpoint() const { return endpoint_; }
  const FileDescriptor& tcp() const { return tcp_; }
  const FileDescriptor& local() const { return local_; }

 private:
  Listener(Endpoint endpoint, FileDescriptor tcp, FileDescriptor local);

  const Endpoint endpoint_;
  const FileDescriptor tcp_, local_;
};

}  // namespace lockstep::allreduce
