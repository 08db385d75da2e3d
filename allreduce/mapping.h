#pragma once
// Memory that the all-reduce owns: zeroed pages of this process alone, or a segment that ranks of one host share. A shared
// segment belongs to one connection of one generation; it has no name in any file system, and is gone when its last holder is,
// killed or not.

#include <cstddef>
#include <utility>

#include "absl/status/statusor.h"
#include "allreduce/socket.h"

namespace lockstep::allreduce {

constexpr size_t kPageBytes = 4096;
constexpr size_t RoundUpToPage(size_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

// A mapping, unmapped at the end. Movable.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* address, size_t bytes) : address_(address), bytes_(bytes) {}
  Mapping(Mapping&& other) noexcept { Swap(other); }
  Mapping& operator=(Mapping&& other) noexcept {
    Swap(other);
    return *this;
  }
  ~Mapping();

  std::byte* data() const { return static_cast<std::byte*>(address_); }
  size_t size() const { return bytes_; }

 private:
  void Swap(Mapping& other) {
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
  }
  void* address_ = nullptr;
  size_t bytes_ = 0;
};

// Zeroed, page-aligned, in huge pages where the kernel has them. ResourceExhausted.
absl::StatusOr<Mapping> MapPrivate(size_t bytes);

struct SharedSegment {
  FileDescriptor file;
  Mapping mapping;
};
// Zeroed, of a size that nobody can change. ResourceExhausted.
absl::StatusOr<SharedSegment> CreateShared(size_t bytes);
// A peer's segment. DataLoss if it is not of `bytes`, or its size could change.
absl::StatusOr<Mapping> MapShared(const FileDescriptor& file, size_t bytes);

}  // namespace lockstep::allreduce
