#pragma once
// What a Pipeline and its batches share: the slots being filled, and the threads that fill them. See dataset/pipeline.h.
//
// A slot is opened (in the order in which training asks), its pictures are handed out one by one to the threads, it is complete, it
// is taken by Next, and its buffer returned by the batch's destructor. How many are open at once, and how many threads fill them, is for
// the PrefetchTuner to say, within what the budget allows. Buffers beyond the first, and pictures that a thread's own buffers cannot hold,
// share one pool of bytes: while large pictures need it, fewer batches are ahead.
//
// Thread-safe.

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "dataset/byte_pool.h"
#include "dataset/picture_loader.h"
#include "dataset/pipeline.h"
#include "dataset/prefetch_tuner.h"

namespace lockstep::dataset {

struct FreeBytes {
  void operator()(float* bytes) const { std::free(bytes); }
};
using FloatBuffer = std::unique_ptr<float, FreeBytes>;

struct BatchSlot {
  FloatBuffer images;
  uint64_t epoch = 0;
  int64_t step = 0;
  int virtual_replica = 0;
  ImageOptions image;
  std::vector<int64_t> ids, labels;
  std::vector<LoadedPicture> pictures;
  size_t next = 0;  // picture to hand out
  size_t done = 0;
  // Known once it is complete.
  std::vector<BadPicture> bad;
  absl::Status status;
  uint64_t digest = 0;

  bool complete() const { return done == ids.size(); }
};

// How a budget is shared out.
struct PipelineShares {
  int threads = 1;
  int most_ahead = 1;        // batches, the one in training included
  int64_t slot_bytes = 0;    // of each
  int64_t thread_bytes = 0;  // of each
  int64_t shared_bytes = 0;  // for further batches, and for pictures that a thread's own buffers cannot hold
  int64_t large_bytes = 0;   // of shared_bytes, what such a picture can count on
};
PipelineShares ShareOut(const PipelineOptions& options, const Sampler& sampler);
PrefetchTuner::Bounds BoundsOf(const PipelineOptions& options, const PipelineShares& shares);

class PipelineCore {
 public:
  PipelineCore(const PipelineOptions& options, const Index& index, std::string folder, const Sampler& sampler);

  void Start();
  void Stop();
  void Join();
  absl::StatusOr<std::unique_ptr<BatchSlot>> Take(int virtual_replica);
  void Return(std::unique_ptr<BatchSlot> slot);
  PipelineStats stats() const;

 private:
  struct Work {
    BatchSlot* slot = nullptr;
    size_t position = 0;
  };
  void Fill(int thread);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Work TakeWork() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Nothing if there are no bytes for it.
  void OpenSlot() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AdvanceCursor() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // False: there are no bytes for one. Null: nor has the system.
  bool TakeBuffer(FloatBuffer& buffer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReturnBuffer(FloatBuffer buffer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int Ready() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  BatchSlot* Find(int virtual_replica) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool HasBuffer() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return !free_.empty() || buffers_ == 0 || shared_.CanAcquire(shares_.slot_bytes);
  }
  bool CanOpen() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !ended_ && held_ < tuner_.depth() && HasBuffer(); }
  static void Seal(BatchSlot& slot);

  const PipelineOptions options_;
  const PipelineShares shares_;
  const Index& index_;
  const Sampler& sampler_;
  const std::unique_ptr<FileReader> local_files_;
  const LoadOptions load_options_;
  BytePool shared_;
  absl::Notification stop_;

  mutable absl::Mutex mutex_;
  std::deque<std::unique_ptr<BatchSlot>> slots_ ABSL_GUARDED_BY(mutex_);  // opened and not taken, oldest first
  std::vector<FloatBuffer> free_ ABSL_GUARDED_BY(mutex_);
  PrefetchTuner tuner_ ABSL_GUARDED_BY(mutex_);
  int buffers_ ABSL_GUARDED_BY(mutex_) = 0;            // that there are
  int64_t touched_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of the threads' own buffers
  int held_ ABSL_GUARDED_BY(mutex_) = 0;               // slots opened and not returned
  uint64_t epoch_ ABSL_GUARDED_BY(mutex_);             // of the slot to open next
  int64_t step_ ABSL_GUARDED_BY(mutex_);
  int virtual_replica_ ABSL_GUARDED_BY(mutex_) = 0;  // counted from the first of ours
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  PipelineStats stats_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;  // touched by the owner only
};

}  // namespace lockstep::dataset
