#include "trainer/place.h"

#include <algorithm>
#include <utility>

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
  ASSIGN_OR_RETURN(exchange_, GradientExchange<T>::Join(spec_, layout_, rendezvous_, ComputeEnvironment()));
  if (spec_.memory_limit > 0) {
    memory::CpuTensorPool().SetLimit(std::max<int64_t>(spec_.memory_limit - exchange_->memory_bytes(), 1));
  }
  runner_ = std::make_unique<StepRunner<T>>(spec_, model_, recipe_, replica_, *exchange_, spec_.kind == JobKind::kFit);
  return absl::OkStatus();
}

template <typename T>
absl::Status Place<T>::Enter() {
  const absl::Status joined = Join();
  return joined.ok() || !MayJoinAnother(joined) ? joined : Move(joined);
}

template <typename T>
absl::Status Place<T>::Move(const absl::Status& broken) {
  absl::Status status = broken;
  do {
    if (!regroup_) return status;
    LOG_WARNING("job=%s generation=%d rank=%d step=broken error=\"%s\" action=\"wait for the next generation\"", spec_.job_id,
                spec_.generation, spec_.rank, status.message());
    // Peers that still wait for us see at once that we are gone.
    runner_.reset();
    exchange_.reset();
    absl::StatusOr<Placement> placement = regroup_();
    if (!placement.ok()) {
      LOG_WARNING("job=%s generation=%d error=\"%s\"", spec_.job_id, spec_.generation, placement.status().message());
      return status;
    }
    static_cast<Placement&>(spec_) = *std::move(placement);
    moved_ = true;
    LOG_INFO("job=%s generation=%d rank=%d ranks=%d event=moved", spec_.job_id, spec_.generation, spec_.rank, spec_.ranks());
    status = Join();
  } while (!status.ok() && MayJoinAnother(status));
  return status;
}

template class Place<float>;
template class Place<double>;

}  // namespace lockstep
