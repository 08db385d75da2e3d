#pragma once
// A stretch of address space of which pages become memory when they are first written, and stop being memory when they are given
// back. Reserving it costs nothing: it is many times the machine's memory, so that what is free in it never needs to be compact.
//
// Pages are opened (made writable) from the front on, in large chunks, and stay open: the kernel merges them into one mapping, and
// where it promises no more memory than it has (vm.overcommit_memory=2) only what was opened is charged.
//
// Not thread-safe.

#include <cstddef>
#include <cstdint>

namespace lockstep::memory {

inline constexpr int64_t kPageBytes = 4096;

// Bytes [begin, end()) of a region; multiples of kPageBytes.
struct Range {
  int64_t begin = 0;
  int64_t size = 0;
  int64_t end() const { return begin + size; }
  friend bool operator==(const Range&, const Range&) = default;
};

class AddressRegion {
 public:
  // As much as the system grants of 16 times the machine's memory: less under `ulimit -v`, perhaps nothing.
  AddressRegion();
  ~AddressRegion();
  AddressRegion(const AddressRegion&) = delete;
  AddressRegion& operator=(const AddressRegion&) = delete;

  int64_t size() const { return size_; }
  std::byte* At(int64_t offset) const { return base_ + offset; }
  int64_t OffsetOf(const void* address) const { return static_cast<const std::byte*>(address) - base_; }

  // Makes [0, end) writable. False if the machine refuses; then nothing changed. REQUIRES: end <= size().
  bool Open(int64_t end);
  // The pages of the range hold no memory any more, and read as zeros. REQUIRES: it is open.
  void GiveBack(Range range);
  // Of [0, end), the bytes that are memory now, from the kernel.
  int64_t ResidentBytes() const;

 private:
  std::byte* base_ = nullptr;
  int64_t size_ = 0;
  int64_t open_ = 0;
};

}  // namespace lockstep::memory
