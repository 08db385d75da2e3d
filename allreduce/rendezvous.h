#pragma once
// How the ranks of a generation find each other: each publishes its Endpoint, and gets those of all. Plain data.

#include <string>

namespace lockstep::allreduce {

struct Endpoint {
  // Equal means that the two can share memory.
  std::string host_id;
  // "127.0.0.1:43211", for ranks of other hosts.
  std::string address;
  // Name of an abstract Unix socket, for ranks of the same host. Without the leading zero byte.
  std::string local_socket;
};

}  // namespace lockstep::allreduce
