#pragma once
// Where tensor memory on CPU comes from: counts every byte by category, refuses what would pass the limit, and keeps freed
// blocks for the next step, because fresh pages cost more than the arithmetic on them (a step asks for the same sizes again).
// No libtorch: memory/cpu_allocator.h puts it under c10.
//
// Live bytes are what callers hold; reserved bytes are live ones and freed blocks kept (the slack). A freed block serves a later
// request of at most its size and at least 7/8 of it. Reserved never passes the limit, nor the highest live figure so far plus
// the slack allowed: kept blocks are given back to the kernel first, oldest first.
//
// Thread-safe.

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "memory/category.h"

namespace lockstep::memory {

class BlockPool {
 public:
  struct Options {
    // Of live bytes; 0: none.
    int64_t limit_bytes = 0;
    // Freed blocks kept beyond what the highest live figure explains.
    int64_t slack_bytes = 32 << 20;
  };

  struct Usage {
    Bytes live;              // by category; kAllocatorSlack: freed blocks kept
    Bytes at_peak;           // as it was when the total of live bytes was highest
    int64_t peak_bytes = 0;  // highest total of live bytes since the last ResetPeak
    int64_t limit_bytes = 0;
    int64_t refused = 0;  // requests refused since the pool was made
  };

  explicit BlockPool(Options options) : options_(options) {}
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // 64-byte aligned (page-aligned from 64 KiB on), uninitialised, booked under the thread's CurrentCategory. Null if the limit
  // or the machine refuses it; then `refused` grew by one, which a caller can check even where a library swallowed the error.
  void* Allocate(size_t bytes);
  // REQUIRES: from Allocate, and not freed yet. Null is fine.
  void Free(void* block);

  void SetLimit(int64_t limit_bytes);
  void ResetPeak();
  Usage GetUsage() const;
  // Gives all kept blocks back.
  void Trim();

 private:
  struct Block {
    int64_t size = 0;
    Category category = Category::kRuntime;
  };
  struct Kept {
    void* address = nullptr;
    int64_t size = 0;
  };
  using Age = std::list<Kept>;

  void* TakeKept(int64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void GiveBackUntil(int64_t reserved) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  mutable absl::Mutex mutex_;
  int64_t limit_ ABSL_GUARDED_BY(mutex_) = options_.limit_bytes;
  absl::flat_hash_map<void*, Block> blocks_ ABSL_GUARDED_BY(mutex_);
  Age kept_by_age_ ABSL_GUARDED_BY(mutex_);  // oldest first
  std::multimap<int64_t, Age::iterator> kept_by_size_ ABSL_GUARDED_BY(mutex_);
  int64_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t live_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t highest_live_ ABSL_GUARDED_BY(mutex_) = 0;  // ever, unlike peak_bytes
  Bytes live_ ABSL_GUARDED_BY(mutex_);
  Bytes at_peak_ ABSL_GUARDED_BY(mutex_);
  int64_t peak_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace lockstep::memory
