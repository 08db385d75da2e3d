#pragma once
// A model of the allocator that holds the tensors of a CUDA device: what a sequence of requests takes of the device, without one. Planning
// replays the recorded step through it. The rules are those of c10::cuda::CUDACachingAllocator in libtorch 2.11 with its default settings,
// for one stream: tests/cuda runs both side by side. Figures stand in docs/memory.md, "On a GPU".
//
// The allocator asks the driver for segments and cuts blocks from them. A request is rounded up to 512 bytes; up to 1 MiB it is served from
// the small pool, of segments of 2 MiB, else from the large one, of segments of 20 MiB for less than 10 MiB, and of whole 2 MiB for more.
// The smallest free block of the pool that holds it serves, the one at the lowest address among several. What is left of it becomes a free
// block: in the small pool always, in the large one if it is more than 1 MiB, else it goes with the block, and counts as allocated. A freed
// block joins its free neighbours in the segment. Segments are kept. Where the driver or the limit refuses another one, all that are wholly
// free are given back and it is asked once more.
//
// Which of several free blocks of one size is taken depends on where the driver put their segments. The model puts each at the lowest free
// address. A driver that does otherwise may pick another, and differ in what is reserved; what is allocated may differ only by what goes
// with blocks of the large pool uncut. Memory that others hold on the device, and what the driver rounds up, are not in it.
//
// Not thread-safe. No libtorch, no CUDA.

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/types/span.h"
#include "memory/category.h"
#include "memory/trace.h"

namespace lockstep::memory {

// One device's pool, one stream.
class CudaAllocator {
 public:
  struct Usage {
    int64_t allocated = 0;  // in blocks that are held
    int64_t reserved = 0;   // in segments
    int64_t peak_allocated = 0;
    int64_t peak_reserved = 0;
    int64_t flushes = 0;  // times that every free segment was given back for want of memory
  };

  // What Allocate returns for no bytes: no block.
  static constexpr int32_t kNoBlock = -1;

  // The limit is of what is reserved, as c10's memory fraction sets it; 0: none.
  explicit CudaAllocator(int64_t limit_bytes = 0) : limit_bytes_(limit_bytes) {}

  // What a request is rounded up to, and the segment that is asked of the driver where no block holds that. REQUIRES: more than 0.
  static int64_t BlockSize(int64_t bytes);
  static int64_t SegmentSize(int64_t block_bytes);

  // A handle of the block; kNoBlock for 0 bytes. nullopt: out of memory, even after everything cached was given back.
  std::optional<int32_t> Allocate(int64_t bytes);
  // REQUIRES: from Allocate, not released since.
  void Release(int32_t handle);
  // Gives every wholly free segment back to the driver.
  void ReleaseCached();

  // Of a block that is held: where it lies among the addresses modelled, and its size, which counts as allocated. REQUIRES: not kNoBlock.
  int64_t AddressOf(int32_t handle) const { return blocks_[static_cast<size_t>(handle)].address; }
  int64_t SizeOf(int32_t handle) const { return blocks_[static_cast<size_t>(handle)].size; }
  const Usage& usage() const { return usage_; }

 private:
  struct Block {
    int64_t address = 0;
    int64_t size = 0;
    int32_t before = kNoBlock;  // neighbours in its segment
    int32_t after = kNoBlock;
    bool small = false;
    bool held = false;
  };
  struct FreeBlock {
    int64_t size, address;
    int32_t index;
    auto operator<=>(const FreeBlock&) const = default;
  };
  using Pool = absl::btree_set<FreeBlock>;

  Pool& PoolOf(const Block& block) { return block.small ? small_ : large_; }
  Block& At(int32_t index) { return blocks_[static_cast<size_t>(index)]; }
  FreeBlock KeyOf(int32_t index) { return {At(index).size, At(index).address, index}; }
  int32_t Add(const Block& block);
  // A new segment as one block; nullopt: refused.
  std::optional<int32_t> AddSegment(int64_t size, bool small);
  // Cuts the first `size` bytes off a block that is not in a pool; the rest goes into one.
  int32_t Cut(int32_t index, int64_t size);
  // Takes a free neighbour of a block that is not in a pool into it.
  void Join(int32_t index, int32_t neighbour);
  void ReleaseCached(Pool& pool);

  const int64_t limit_bytes_;
  Usage usage_;
  std::vector<Block> blocks_;
  std::vector<int32_t> unused_;  // indices into blocks_
  Pool small_, large_;
  absl::btree_map<int64_t, int64_t> segments_;  // size by address
};

// A pass replayed: the state first, block by block, then the step's sequence, `steps` times. What a step does not release itself is
// released at its end.
struct CudaReplay {
  bool fits = true;            // false: a request was refused; the figures are up to there
  int64_t peak_allocated = 0;  // live bytes at the worst moment, as the allocator rounds them
  int64_t peak_reserved = 0;   // the most that the driver gave to the pool
  Bytes by_category;           // live at the worst moment; kAllocatorSlack: peak_reserved - peak_allocated
  std::string place;           // what ran at the worst moment ("backward conv1"), as in Peak; "": the state alone
};
CudaReplay ReplayOnCuda(absl::Span<const std::pair<Category, int64_t>> state_blocks, const Trace& step, int steps, int64_t limit_bytes);

}  // namespace lockstep::memory
