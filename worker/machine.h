#pragma once
// What this host has, as the kernel says it. Thread-safe: no state.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace lockstep {

std::string HostName();
// Cores that this process may run on.
uint32_t Cores();
// Of the machine, or of its control groups if those allow less.
uint64_t MemoryBytes();
// The least memory limit of the groups that /proc/self/cgroup names as `membership`, and of all above them, version 1 or 2, mounted below
// `root`; a container that sees only its own group at the root has that. UINT64_MAX: none.
uint64_t GroupMemoryLimit(const std::string& membership, const std::string& root);
uint64_t ResidentBytes();
// The address of this host from which packets to "HOST:PORT" leave: where others on the way there can reach it. NotFound: the
// host has no address.
absl::StatusOr<std::string> AddressTowards(const std::string& host_and_port);

}  // namespace lockstep
