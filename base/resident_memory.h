#pragma once
// How much of this process's address space is memory now, from the kernel's page table. Thread-safe: no state.

#include <cstddef>
#include <cstdint>

namespace lockstep {

// Of [address, address + bytes), what this process has mapped in: pages of a shared mapping that only others have touched do not
// count. Whole pages. All of the range where the kernel does not tell (no /proc).
int64_t ResidentBytesOf(const void* address, size_t bytes);

}  // namespace lockstep
