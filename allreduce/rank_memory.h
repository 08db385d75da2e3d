#pragma once
// The memory of a rank that the others of its host map: a control block, and the vectors of its subtree sums. Peers read their
// chunks of the sums there, and write the reduced chunks into the first vector, in place.
//
//   | control block | vector of the 1st maximal subtree, later the result | vector of the 2nd | …      each from a page's start
//
// Thread-safety: the words of the control block are atomic; who may touch which part of the rest, and when, follows from them
// (docs/allreduce.md).

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "allreduce/layout.h"
#include "allreduce/mapping.h"

namespace lockstep::allreduce {

// Of an encoded verdict.
constexpr size_t kMaxVerdictBytes = 64 << 10;

// Counts since the generation began. Each word has one writer, but for `parked`.
struct ControlBlock {
  static_assert(std::atomic<uint64_t>::is_always_lock_free);
  // Buckets whose sums are complete.
  alignas(64) std::atomic<uint64_t> ready;
  // Exchanges whose verdict lies below.
  std::atomic<uint64_t> posted;
  // Exchanges of which this rank has read and written all that it had to in its peers' memory.
  std::atomic<uint64_t> finished;
  // Goes up every few seconds while the rank is alive, whatever it does.
  std::atomic<uint64_t> beats;
  // 1 while the rank sleeps, and wants a packet on its local sockets when a word of a peer's has changed.
  alignas(64) std::atomic<uint32_t> parked;
  // Guarded by `posted`: written before it, read after it.
  alignas(64) uint32_t verdict_bytes;
  uint32_t with_gradients;
  std::byte verdict[kMaxVerdictBytes];
};

class RankMemory {
 public:
  // `shared`: for peers of the same host. ResourceExhausted.
  static absl::StatusOr<RankMemory> Create(const Layout& layout, size_t subtrees, bool shared);
  // A peer's.
  static absl::StatusOr<RankMemory> Map(const FileDescriptor& file, const Layout& layout, size_t subtrees);
  static size_t Bytes(const Layout& layout, size_t subtrees);

  ControlBlock& control() const { return *reinterpret_cast<ControlBlock*>(mapping_.data()); }
  std::byte* vector(size_t subtree) const;
  const FileDescriptor& file() const { return file_; }
  // What of it this process has mapped in, from the kernel: of a peer's, what this rank has read or written.
  size_t resident_bytes() const;
  size_t resident_control_bytes() const;

 private:
  RankMemory(Mapping mapping, FileDescriptor file, const Layout& layout);

  Mapping mapping_;
  FileDescriptor file_;
  size_t vector_bytes_ = 0;
};

}  // namespace lockstep::allreduce
