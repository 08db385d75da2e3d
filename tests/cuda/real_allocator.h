#pragma once
// c10's own allocator of a CUDA device, as the wheel has it, over the fake runtime. There is one in a process. No libtorch in this header.
//
// Not thread-safe.

#include <cstdint>
#include <optional>

namespace lockstep {

class RealAllocator {
 public:
  // What keeps to the limit: the allocator, or the device, which has no more.
  enum class LimitBy { kFraction, kDevice };
  // Where the device gives memory: at the lowest free address, as the model has it, or at the highest.
  enum class Placement { kLowest, kHighest };

  struct Usage {
    int64_t allocated = 0, reserved = 0;
    int64_t peak_allocated = 0, peak_reserved = 0;
    int64_t flushes = 0;
  };

  // Empty. REQUIRES: no other lives; 0 <= limit_bytes <= 1 TiB, 0: none.
  explicit RealAllocator(int64_t limit_bytes = 0, LimitBy by = LimitBy::kFraction, Placement placement = Placement::kLowest);
  // REQUIRES: everything was released.
  ~RealAllocator();
  RealAllocator(const RealAllocator&) = delete;
  RealAllocator& operator=(const RealAllocator&) = delete;

  // The block's address, from the lowest that the device has; nullopt: out of memory. REQUIRES: more than 0 bytes.
  std::optional<int64_t> Allocate(int64_t bytes);
  void Release(int64_t address);
  Usage usage() const;
};

}  // namespace lockstep
