#pragma once
// What the kernel says of this process. No libtorch.

#include <cstdint>
#include <map>
#include <string>

namespace lockstep {

// Resident bytes (VmRSS), and how many of them are file-backed (shared libraries, mapped indexes) or shared memory.
struct ResidentBytes {
  int64_t total = 0;
  int64_t file = 0;
  int64_t shared_memory = 0;
};
ResidentBytes GetResidentBytes();

// Equal on all processes that can share memory: the boot's id and the network namespace.
std::string HostId();

// "model name" and the vector instruction sets of the processor, for comparing hosts of a generation.
std::map<std::string, std::string> ProcessorEnvironment();

}  // namespace lockstep
