#pragma once
// What the kernel and the C library say of this process. Thread-safe: no state. No libtorch.

#include <cstdint>
#include <map>
#include <string>

namespace lockstep {

// Resident bytes (VmRSS), and how many of them are file-backed (programs and shared libraries) or shared memory.
struct ResidentBytes {
  int64_t total = 0;
  int64_t file = 0;
  int64_t shared_memory = 0;
};
ResidentBytes GetResidentBytes();

// The C library's heap: what malloc has handed out, large blocks of their own mappings included, and what it keeps for later, as far as
// that has memory: much of it was given back to the kernel, or never touched. `not_heap`: the beginning of a mapping of somebody else's
// that might look like a part of it. 1 to 2 ms.
struct HeapBytes {
  int64_t in_use = 0;
  int64_t free = 0;
};
HeapBytes GetHeapBytes(const void* not_heap = nullptr);

// For a drill: heap that is asked for, written, and lost.
void LeakHeap(int64_t bytes);

// Equal on all processes that can share memory: the boot's id and the network namespace.
std::string HostId();

// "model name" and the vector instruction sets of the processor, for comparing hosts of a generation.
std::map<std::string, std::string> ProcessorEnvironment();

}  // namespace lockstep
