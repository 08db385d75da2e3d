#include "trainer/checkpoint_writer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/failpoint.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "memory/category.h"

namespace lockstep {

template <typename T>
CheckpointWriter<T>::CheckpointWriter(const RunSpec& spec, const Model& model, Replica<T>& replica, const CheckpointStorage& storage,
                                      Reporter& reporter)
    : spec_(spec), model_(model), replica_(replica), storage_(storage), reporter_(reporter), thread_([this] { Loop(); }) {
  replica_.SetBeforeChange([this] { AwaitCopy(); });
}

template <typename T>
CheckpointWriter<T>::~CheckpointWriter() {
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  thread_.join();
  replica_.SetBeforeChange(nullptr);
}

template <typename T>
std::string CheckpointWriter<T>::Scratch(const char* name) const {
  return absl::StrCat(spec_.scratch, "/", name);
}

template <typename T>
bool CheckpointWriter<T>::IsDue(uint64_t step) const {
  if (spec_.checkpoint_steps > 0) return step % spec_.checkpoint_steps == 0;
  return spec_.checkpoint_seconds > 0 && absl::Now() - last_begun_ >= absl::Seconds(spec_.checkpoint_seconds);
}

template <typename T>
void CheckpointWriter<T>::Begin(const FitState& progress) {
  absl::MutexLock lock(&mutex_);
  last_begun_ = absl::Now();
  if (!Idle()) {
    ++figures_.skipped;
    return;
  }
  // The best epoch's files as they are now: the next epoch may write others.
  for (const char* name : {"best.keras", "best.weights"}) {
    const std::string kept = Scratch(absl::StrCat("checkpoint.", name).c_str());
    unlink(kept.c_str());
    [[maybe_unused]] const int linked = link(Scratch(name).c_str(), kept.c_str());  // there may be none
  }
  progress_ = progress;
  progress_.records = reporter_.Records();
  stage_ = Stage::kCopying;
}

template <typename T>
void CheckpointWriter<T>::Agreed(uint64_t step) {
  absl::MutexLock lock(&mutex_);
  agreed_ = std::max(agreed_, step);
}

template <typename T>
absl::Status CheckpointWriter<T>::Write(const FitState& progress) {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &CheckpointWriter::Idle));
    agreed_ = std::max(agreed_, progress.step);
  }
  Begin(progress);
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(this, &CheckpointWriter::Idle));
  return last_;
}

template <typename T>
void CheckpointWriter<T>::AwaitCopy() {
  absl::MutexLock lock(&mutex_);
  if (Copied()) return;
  const absl::Time start = absl::Now();
  mutex_.Await(absl::Condition(this, &CheckpointWriter::Copied));
  figures_.stall_seconds += absl::ToDoubleSeconds(absl::Now() - start);
}

template <typename T>
CheckpointFigures CheckpointWriter<T>::figures() const {
  absl::MutexLock lock(&mutex_);
  return figures_;
}

template <typename T>
void CheckpointWriter<T>::Loop() {
  at::set_num_threads(1);
  for (;;) {
    FitState progress;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &CheckpointWriter::HasWork));
      if (closed_) {
        stage_ = Stage::kIdle;
        return;
      }
      progress = progress_;
    }
    const absl::Time begun = absl::Now();
    absl::Status status = Copy(progress);
    {
      absl::MutexLock lock(&mutex_);
      stage_ = Stage::kWriting;
    }
    if (status.ok()) status = WriteAndStore(progress);
    Told(progress, status, begun);
    unlink(Scratch("checkpoint").c_str());
  }
}

template <typename T>
absl::Status CheckpointWriter<T>::Copy(const FitState& progress) {
  try {
    if (!copy_.defined()) {
      const memory::ScopedCategory category(memory::Category::kCheckpointCopies);
      copy_ = at::empty({static_cast<int64_t>(replica_.StateBytes())}, at::kByte);
    }
  } catch (const c10::Error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for a copy of the state: ", error.what_without_backtrace()));
  }
  LOCKSTEP_FAILPOINT("trainer.checkpoint.copy");
  replica_.CopyState(static_cast<std::byte*>(copy_.data_ptr()));
  LOG_DEBUG("job=%s checkpoint=%d copied=%d", spec_.job_id, progress.step, copy_.nbytes());
  return absl::OkStatus();
}

template <typename T>
absl::Status CheckpointWriter<T>::WriteAndStore(FitState progress) {
  const std::string path = Scratch("checkpoint");
  const absl::Span<const std::byte> state(static_cast<const std::byte*>(copy_.data_ptr()), replica_.StateBytes());
  const CheckpointFiles files{Scratch("checkpoint.best.keras"), Scratch("checkpoint.best.weights")};
  try {
    RETURN_IF_ERROR(WriteCheckpoint(path, spec_, model_, replica_, state, progress, files));
  } catch (const c10::Error& error) {
    return absl::ResourceExhaustedError(error.what_without_backtrace());
  }
  {
    absl::MutexLock lock(&mutex_);
    const auto agreed = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closed_ || agreed_ >= progress.step; };
    mutex_.Await(absl::Condition(&agreed));
    if (agreed_ < progress.step) return absl::CancelledError("the trainer ends");
  }
  LOCKSTEP_FAILPOINT("trainer.checkpoint.store");
  return storage_.store(CheckpointName(progress.step), path);
}

template <typename T>
void CheckpointWriter<T>::Told(const FitState& progress, const absl::Status& status, absl::Time begun) {
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begun);
  {
    absl::MutexLock lock(&mutex_);
    stage_ = Stage::kIdle;
    last_ = status;
    if (status.ok()) {
      ++figures_.written;
      figures_.step = progress.step;
      figures_.seconds = seconds;
      figures_.bytes = static_cast<uint64_t>(copy_.nbytes());
    } else {
      ++figures_.failed;
    }
  }
  if (status.ok()) {
    LOG_INFO("job=%s checkpoint=%d seconds=%.3f", spec_.job_id, progress.step, seconds);
  } else if (absl::IsFailedPrecondition(status) || absl::IsCancelled(status)) {
    // A newer generation took the place of this one meanwhile, or the trainer ends: its next will do.
    LOG_INFO("job=%s checkpoint=%d given_up=\"%s\"", spec_.job_id, progress.step, status.message());
  } else {
    reporter_.Note(absl::StrCat("the checkpoint of step ", progress.step, " could not be kept: ", status.message()));
  }
}

template class CheckpointWriter<float>;
template class CheckpointWriter<double>;

}  // namespace lockstep
