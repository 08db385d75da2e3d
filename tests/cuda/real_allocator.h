#pragma once
// c10's own allocator of a CUDA device, as the wheel has it, over the fake runtime. There is one in a process. No libtorch in this header.

#include <cstdint>
#include <optional>

namespace lockstep {

class RealAllocator {
 public:
  struct Usage {
    int64_t allocated = 0, reserved = 0, peak_allocated = 0, peak_reserved = 0, flushes = 0;
    bool operator==(const Usage&) const = default;
  };

  // Of a limit: whether the allocator keeps to it, or the device has no more.
  enum class LimitBy { kFraction, kDevice };

  // Empty, and limited. REQUIRES: no other lives; 0 < limit_bytes <= 1 TiB, 0: none.
  RealAllocator(int64_t limit_bytes, LimitBy by);
  // REQUIRES: everything was released.
  ~RealAllocator();
  RealAllocator(const RealAllocator&) = delete;
  RealAllocator& operator=(const RealAllocator&) = delete;

  // nullopt: out of memory.
  std::optional<void*> Allocate(int64_t bytes);
  void Release(void* address);
  Usage usage() const;
};

}  // namespace lockstep
