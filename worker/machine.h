#pragma once
// What this host has, as the kernel says it. Thread-safe: no state.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace lockstep {

std::string HostName();
// Cores that this process may run on.
uint32_t Cores();
// Of the machine, or of the control group if that allows less.
uint64_t MemoryBytes();
uint64_t ResidentBytes();
// The address of this host from which packets to "HOST:PORT" leave: where others on the way there can reach it. NotFound: the
// host has no address.
absl::StatusOr<std::string> AddressTowards(const std::string& host_and_port);

}  // namespace lockstep
