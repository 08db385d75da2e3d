#pragma once
// A number of bytes that threads share: who wants some waits until they are there. It hands out permissions, not memory.
//
// Whoever holds bytes must not wait for more: give back, then ask for all that is needed. So nobody waits for ever.
//
// Thread-safe.

#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace lockstep::dataset {

class BytePool {
 public:
  explicit BytePool(int64_t capacity) : capacity_(capacity) {}

  int64_t capacity() const { return capacity_; }
  int64_t used() const {
    absl::MutexLock lock(&mutex_);
    return used_;
  }

  // False if the pool was closed meanwhile. REQUIRES: bytes <= capacity().
  bool Acquire(int64_t bytes) {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this, bytes]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closed_ || used_ + bytes <= capacity_; };
    mutex_.Await(absl::Condition(&ready));
    if (closed_) return false;
    used_ += bytes;
    return true;
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
  const int64_t capacity_;
  mutable absl::Mutex mutex_;
  int64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace lockstep::dataset
