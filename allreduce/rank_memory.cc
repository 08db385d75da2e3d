#include "allreduce/rank_memory.h"

#include <utility>

#include "base/resident_memory.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {

size_t RankMemory::Bytes(const Layout& layout, size_t subtrees) {
  return RoundUpToPage(sizeof(ControlBlock)) + subtrees * RoundUpToPage(layout.bytes());
}

// A control block of zeros is a valid one: fresh pages need no construction.
absl::StatusOr<RankMemory> RankMemory::Create(const Layout& layout, size_t subtrees, bool shared) {
  const size_t bytes = Bytes(layout, subtrees);
  if (!shared) {
    ASSIGN_OR_RETURN(Mapping mapping, MapPrivate(bytes));
    return RankMemory(std::move(mapping), FileDescriptor(), layout);
  }
  ASSIGN_OR_RETURN(SharedSegment segment, CreateShared(bytes));
  return RankMemory(std::move(segment.mapping), std::move(segment.file), layout);
}

absl::StatusOr<RankMemory> RankMemory::Map(const FileDescriptor& file, const Layout& layout, size_t subtrees) {
  ASSIGN_OR_RETURN(Mapping mapping, MapShared(file, Bytes(layout, subtrees)));
  return RankMemory(std::move(mapping), FileDescriptor(), layout);
}

RankMemory::RankMemory(Mapping mapping, FileDescriptor file, const Layout& layout)
    : mapping_(std::move(mapping)), file_(std::move(file)), vector_bytes_(RoundUpToPage(layout.bytes())) {}

size_t RankMemory::resident_bytes() const { return static_cast<size_t>(ResidentBytesOf(mapping_.data(), mapping_.size())); }

size_t RankMemory::resident_control_bytes() const { return static_cast<size_t>(ResidentBytesOf(mapping_.data(), sizeof(ControlBlock))); }

std::byte* RankMemory::vector(size_t subtree) const {
  return mapping_.data() + RoundUpToPage(sizeof(ControlBlock)) + subtree * vector_bytes_;
}

}  // namespace lockstep::allreduce
