#pragma once
// Where tensor memory on CPU comes from: counts every byte by category, refuses what would pass the limit, and keeps freed
// memory for the next step, because fresh pages cost more than the arithmetic on them (a step asks for the same sizes again).
// No libtorch: memory/cpu_allocator.h puts it under c10.
//
// Blocks of more than Slabs::kLargestBlock are whole pages of one region of address space; smaller ones share slabs of its pages
// (memory/slabs.h). Pages are live (in a block), kept (free, and still memory) or cold (no memory yet, or given back). A request
// is cut from the smallest kept range that holds it, and freed ranges join their neighbours. Where no kept range does, one that
// cold pages follow grows into them, or cold pages serve; the pages kept longest are given back first, as many as the bound asks
// for: any page can go alone, so what is free in pieces never adds to what is resident.
//
// Live bytes are what callers hold: of a request, a function of its size alone, so that a recorded sequence of requests
// determines them. Reserved bytes are live and kept ones; the kernel never has more of the region resident than that. Reserved
// never passes the limit, nor the highest live figure so far plus the slack, but for the free parts of slabs in use, which are
// kept whatever the bound.
//
// Thread-safe.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "memory/address_region.h"
#include "memory/category.h"
#include "memory/place.h"
#include "memory/range_set.h"
#include "memory/requests.h"
#include "memory/slabs.h"

namespace lockstep::memory {

class BlockPool {
 public:
  struct Options {
    // Of live bytes; 0: none.
    int64_t limit_bytes = 0;
    // Kept beyond what the highest live figure explains.
    int64_t slack_bytes = 32 << 20;
  };

  // The highest total of live bytes while some thread was in a phase, and in which layer that was raised last. In backward the layer that
  // ended next (EndOf).
  struct HighWater {
    int64_t bytes = 0;
    std::string layer;
  };

  struct Usage {
    Bytes live;              // by category; kAllocatorSlack: kept bytes
    Bytes at_peak;           // as it was when the total of live bytes was highest
    int64_t peak_bytes = 0;  // highest total of live bytes since the last ResetPeak
    int64_t limit_bytes = 0;
    int64_t refused = 0;                        // requests refused since the pool was made
    std::array<HighWater, kPhases> high_water;  // since the pool was made
  };

  explicit BlockPool(Options options);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // The live bytes of a request.
  static int64_t BlockSize(size_t bytes);

  // 64-byte aligned (page-aligned beyond Slabs::kLargestBlock), uninitialised, booked under the thread's CurrentCategory. Null if
  // the limit or the machine refuses it, or it must fail (memory/requests.h); then `refused` grew by one, and the calling thread's
  // Requests know it, even where a library swallowed the error.
  void* Allocate(size_t bytes);
  // REQUIRES: from Allocate, and not freed yet. Null is fine.
  void Free(void* block);

  void SetLimit(int64_t limit_bytes);
  void ResetPeak();
  // Counts what is live now for the calling thread's phase, as a request would.
  void Mark();
  // The calling thread is through with a layer in backward: what it raised since the last one was that layer's.
  void EndOf(std::string_view layer);
  Usage GetUsage() const;
  // The newest, if there was one.
  std::optional<Refusal> LastRefusal() const;
  // Gives all kept bytes back, but for the free parts of slabs in use.
  void Trim();
  // Where its region of address space begins; null: the machine gave none.
  const void* region() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What the kernel holds for the pool.
  int64_t ResidentBytes() const;

 private:
  struct Block {
    int64_t size = 0;
    const char* layer = "";  // that ran; lives for good
    Category category = Category::kRuntime;
  };

  void* Take(size_t bytes, Category category);
  Refusal Refuse(size_t bytes, Category category);
  void Raise() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t Kept() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return kept_.bytes() + slabs_.free_bytes(); }
  // Offsets of blocks; nothing if the machine refuses.
  std::optional<int64_t> TakeSmall(int64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<int64_t> TakePages(int64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::optional<int64_t> TakeCold(int64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes open pages out of the cold ones.
  bool Warm(Range pages) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBack(int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBackAbove(int64_t reserved) ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  mutable absl::Mutex mutex_;
  int64_t limit_ ABSL_GUARDED_BY(mutex_) = options_.limit_bytes;
  AddressRegion region_ ABSL_GUARDED_BY(mutex_);
  RangeSet kept_ ABSL_GUARDED_BY(mutex_);
  RangeSet cold_ ABSL_GUARDED_BY(mutex_);
  Slabs slabs_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<void*, Block> blocks_ ABSL_GUARDED_BY(mutex_);
  int64_t freed_ ABSL_GUARDED_BY(mutex_) = 0;  // counts Free: the age of kept ranges
  int64_t live_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t highest_live_ ABSL_GUARDED_BY(mutex_) = 0;  // ever, unlike peak_bytes
  Bytes live_ ABSL_GUARDED_BY(mutex_);
  Bytes at_peak_ ABSL_GUARDED_BY(mutex_);
  int64_t peak_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<Refusal> last_refusal_ ABSL_GUARDED_BY(mutex_);
  std::array<HighWater, kPhases> high_water_ ABSL_GUARDED_BY(mutex_);
  const void* raised_by_ ABSL_GUARDED_BY(mutex_) = nullptr;  // the thread whose layer in backward is not known yet
};

}  // namespace lockstep::memory
