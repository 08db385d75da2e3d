#include "trainer/place.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "base/failpoint.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "trainer/loaded_model.h"

namespace lockstep {
namespace {

// While a generation's ranks connect, one that has moved on or died shows in more ways than afterwards: its generation is over for the
// coordinator, or the peer that was connected to is another's.
bool MayJoinAnother(const absl::Status& status) {
  return IsPeersTrouble(status) || absl::IsFailedPrecondition(status) || absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status) ||
         absl::IsPermissionDenied(status);
}

}  // namespace

template <typename T>
absl::Status Place<T>::Join() {
  reporter_.Status({.phase = "rendezvous"});
  reporter_.Enter("rendezvous", 0);
  LOCKSTEP_FAILPOINT("trainer.rendezvous");
  const auto abandoned = [this] { return reporter_.NewestGeneration() > spec_.generation; };
  ASSIGN_OR_RETURN(exchange_, GradientExchange<T>::Join(spec_, layout_, rendezvous_, ComputeEnvironment(), abandoned));
  requests_.Begin(spec_.rank, 0);
  SetTensorLimit();
  MakeRunner();
  return absl::OkStatus();
}

template <typename T>
void Place<T>::SetTensorLimit() {
  if (spec_.tensor_bytes > 0) {
    memory::CpuTensorPool().SetLimit(std::max<int64_t>(spec_.tensor_bytes - exchange_->memory_bytes(), 1));
  }
}

template <typename T>
void Place<T>::MakeRunner() {
  runner_ =
      std::make_unique<StepRunner<T>>(spec_, model_, recipe_, replica_, *exchange_, requests_, reporter_, spec_.kind == JobKind::kFit);
}

template <typename T>
void Place<T>::Ease(const Remedies& remedies) {
  const bool other_threads = remedies.threads != spec_.threads;
  const bool other_segments = recomputations_ < remedies.recomputations;
  if (other_threads || other_segments) runner_.reset();
  for (; recomputations_ < remedies.recomputations && !spec_.next.empty(); ++recomputations_) {
    spec_.recompute = std::move(spec_.next.front());
    spec_.next.erase(spec_.next.begin());
  }
  if (other_threads) {
    spec_.threads = remedies.threads;
    exchange_->SpreadOverThreads(layout_);
    SetTensorLimit();
  }
  memory::CpuTensorPool().Trim();
  malloc_trim(0);
  if (runner_ == nullptr) MakeRunner();
}

template <typename T>
absl::Status Place<T>::Enter() {
  if (spec_.joins && regroup_) return Move(absl::AbortedError("it joins a job that runs"));
  const absl::Status joined = Join();
  return joined.ok() || !MayJoinAnother(joined) || !regroup_ ? joined : Move(joined);
}

template <typename T>
absl::Status Place<T>::Move(const absl::Status& why) {
  if (!regroup_) return why;
  absl::Status status = why;
  do {
    LOG_INFO("job=%s generation=%d rank=%d reason=\"%s\" action=\"ask for a place in a newer generation\"", spec_.job_id, spec_.generation,
             spec_.rank, status.message());
    // Peers that still wait for us see at once that we are gone.
    runner_.reset();
    exchange_.reset();
    absl::StatusOr<Placement> placement =
        regroup_({.reason = std::string(status.message()), .silent_ranks = allreduce::SilentRanks(status)});
    RETURN_IF_ERROR(placement.status());
    status = MoveTo(*std::move(placement));
  } while (!status.ok() && MayJoinAnother(status));
  return status;
}

template <typename T>
absl::Status Place<T>::MoveTo(Placement placement) {
  runner_.reset();
  exchange_.reset();
  static_cast<Placement&>(spec_) = std::move(placement);
  moved_ = true;
  LOG_INFO("job=%s generation=%d rank=%d ranks=%d event=moved", spec_.job_id, spec_.generation, spec_.rank, spec_.ranks());
  return Join();
}

template <typename T>
absl::StatusOr<bool> Place<T>::AwaitEnd() {
  if (!regroup_) return true;
  absl::StatusOr<Placement> placement = regroup_({.finished = true, .reason = "all steps are done"});
  if (absl::IsFailedPrecondition(placement.status())) return true;
  RETURN_IF_ERROR(placement.status());
  const absl::Status moved = MoveTo(*std::move(placement));
  RETURN_IF_ERROR(moved.ok() || !MayJoinAnother(moved) ? moved : Move(moved));
  return false;
}

template class Place<float>;
template class Place<double>;

}  // namespace lockstep
