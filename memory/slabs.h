#pragma once
// Small blocks, many to a slab: a slab is a range of pages, cut into blocks of one size. The sizes are multiples of 64 bytes, four
// to each doubling, so that a block is at most a quarter larger than what was asked for (but for the first few).
//
// A slab is added when no slab of the size has room, and blocks come from the lowest slab that has: there are never more slabs of a
// size than the most blocks that were ever live needed. A slab without live blocks leaves.
//
// Not thread-safe. Hands out offsets and touches no memory.

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "memory/address_region.h"

namespace lockstep::memory {

class Slabs {
 public:
  static constexpr int64_t kSlabBytes = 64 << 10;
  static constexpr int64_t kLargestBlock = 4 << 10;

  // The size of the block that serves `bytes`. REQUIRES: 0 < bytes <= kLargestBlock.
  static int64_t BlockSize(int64_t bytes);

  // A block of exactly `size` bytes, 64-byte aligned; nothing if every slab of that size is full. REQUIRES: BlockSize(size) == size.
  std::optional<int64_t> Take(int64_t size);
  // Cuts pages into blocks of `size`. REQUIRES: pages.size == kSlabBytes.
  void AddSlab(Range pages, int64_t size);
  // Takes a block back. Returns its slab if that was the last live block in it; then the slab has left. REQUIRES: from Take.
  std::optional<Range> Put(int64_t block);

  // Of all slabs, what is not in live blocks.
  int64_t free_bytes() const { return free_bytes_; }

 private:
  struct Slab {
    int64_t block_size = 0;
    int64_t live = 0;            // blocks
    int64_t cut = 0;             // blocks that were ever handed out: [0, cut)
    std::vector<int64_t> freed;  // offsets of those that came back
    bool HasRoom() const { return !freed.empty() || (cut + 1) * block_size <= kSlabBytes; }
  };

  absl::btree_map<int64_t, Slab> slabs_;                              // by offset
  absl::flat_hash_map<int64_t, absl::btree_set<int64_t>> with_room_;  // by block size
  int64_t free_bytes_ = 0;
};

}  // namespace lockstep::memory
