#pragma once
// Writes checkpoints beside training. A replica's state is constant between two updates, so a thread of this object's copies it while
// the next step computes, and the update waits only for a copy that is not done; from the copy the same thread writes the file, and hands
// it to the store once all replicas have agreed on that state. One at a time: where the last is still on its way, the next is left out.
//
// The copy's memory (Replica::StateBytes) is allocated with the first checkpoint, and kept. Includes libtorch through its parts.
// Thread-safety: of the thread that changes the replica; Figures from any.

#include <ATen/core/Tensor.h>

#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "model/model.h"
#include "trainer/checkpoint.h"
#include "trainer/checkpoint_storage.h"
#include "trainer/records.h"

namespace lockstep {

template <typename T>
class CheckpointWriter {
 public:
  // All must outlive this object. `storage` has a store.
  CheckpointWriter(const RunSpec& spec, const Model& model, Replica<T>& replica, const CheckpointStorage& storage, Reporter& reporter);
  ~CheckpointWriter();

  // By the job's interval, of steps or of time, and what was begun before.
  bool IsDue(uint64_t step) const;
  // Of the state as it is, at `progress`.
  void Begin(const FitState& progress);
  // All replicas have the same state after this step.
  void Agreed(uint64_t step);
  // Now, and waits until it is kept. The state must be agreed on.
  absl::Status Write(const FitState& progress);
  CheckpointFigures figures() const;

 private:
  enum class Stage { kIdle, kCopying, kWriting };

  void Loop();
  absl::Status Copy(const FitState& progress);
  absl::Status WriteAndStore(FitState progress);
  void Told(const FitState& progress, const absl::Status& status, absl::Time begun);
  void AwaitCopy();
  bool Idle() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stage_ == Stage::kIdle; }
  bool Copied() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stage_ != Stage::kCopying; }
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closed_ || stage_ == Stage::kCopying; }
  std::string Scratch(const char* name) const;

  const RunSpec& spec_;
  const Model& model_;
  Replica<T>& replica_;
  const CheckpointStorage& storage_;
  Reporter& reporter_;
  at::Tensor copy_;  // of the thread, while it is not idle
  uint64_t last_step_ = 0;
  absl::Time last_begun_ = absl::Now();

  mutable absl::Mutex mutex_;
  Stage stage_ ABSL_GUARDED_BY(mutex_) = Stage::kIdle;
  FitState progress_ ABSL_GUARDED_BY(mutex_);
  uint64_t agreed_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status last_ ABSL_GUARDED_BY(mutex_);  // of the newest that ended
  CheckpointFigures figures_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

extern template class CheckpointWriter<float>;
extern template class CheckpointWriter<double>;

}  // namespace lockstep
