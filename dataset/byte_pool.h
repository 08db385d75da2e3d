#pragma once
// A number of bytes that threads share: who wants some waits until they are there. It hands out permissions, not memory.
//
// Whoever waits (Acquire) holds nothing meanwhile, and asks for no more than `largest`: give back, then ask for all that is needed. What is
// held for long (TryAcquire) never leaves less than `largest`, and is not given while somebody waits. So nobody waits for ever.
//
// Thread-safe.

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace lockstep::dataset {

class BytePool {
 public:
  BytePool(int64_t capacity, int64_t largest) : capacity_(capacity), largest_(largest) {}
  explicit BytePool(int64_t capacity) : BytePool(capacity, capacity) {}

  int64_t largest() const { return largest_; }
  int64_t used() const {
    absl::MutexLock lock(&mutex_);
    return used_;
  }

  // False if the pool was closed meanwhile. REQUIRES: bytes <= largest().
  bool Acquire(int64_t bytes) {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this, bytes]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closed_ || used_ + bytes <= capacity_; };
    ++waiting_;
    mutex_.Await(absl::Condition(&ready));
    --waiting_;
    if (closed_) return false;
    used_ += bytes;
    return true;
  }
  // For long, and only if nobody waits. REQUIRES: all that is held so is at most the capacity less largest().
  bool TryAcquire(int64_t bytes) {
    absl::MutexLock lock(&mutex_);
    if (!HasRoom(bytes)) return false;
    used_ += bytes;
    return true;
  }
  // Whether TryAcquire would succeed now.
  bool CanAcquire(int64_t bytes) const {
    absl::MutexLock lock(&mutex_);
    return HasRoom(bytes);
  }
  bool is_waited_for() const {
    absl::MutexLock lock(&mutex_);
    return waiting_ > 0;
  }
  void Release(int64_t bytes) {
    absl::MutexLock lock(&mutex_);
    used_ -= bytes;
  }

  // Wakes all who wait.
  void Close() {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }

 private:
  bool HasRoom(int64_t bytes) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return waiting_ == 0 && used_ + bytes <= capacity_; }

  const int64_t capacity_, largest_;
  mutable absl::Mutex mutex_;
  int64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  int waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace lockstep::dataset
