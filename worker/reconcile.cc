#include "worker/reconcile.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

bool Wants(absl::Span<const WantedTrainer> wanted, const TrainerKey& key) {
  return std::any_of(wanted.begin(), wanted.end(), [&key](const WantedTrainer& one) { return one.key == key; });
}

bool IsSuperseded(absl::Span<const WantedTrainer> wanted, const TrainerKey& key) {
  // A planner has said what it had to say before the training was ordered: it may leave by itself.
  return key.role == v1::TRAIN && std::any_of(wanted.begin(), wanted.end(), [&key](const WantedTrainer& one) {
           return one.key.job_id == key.job_id && one.key.generation > key.generation;
         });
}

// One of the same job, from another generation or of another role, still runs here and should not.
bool MustWait(absl::Span<const WantedTrainer> wanted, absl::Span<const ActualTrainer> actual, const TrainerKey& key) {
  return std::any_of(actual.begin(), actual.end(), [&](const ActualTrainer& one) {
    return !one.ended && one.key.job_id == key.job_id && (one.key.generation != key.generation || one.key.role != key.role) &&
           !Wants(wanted, one.key);
  });
}

void StopUnwanted(const ActualTrainer& trainer, bool superseded, absl::Time now, const ReconcileOptions& options, Reconciliation* result) {
  if (trainer.killed) return;
  const absl::Time since = trainer.unwanted_since.value_or(now);
  if (superseded || now >= since + options.grace) {
    result->kill.push_back(trainer.key);
    return;
  }
  if (!trainer.terminated && now >= since + options.patience) result->terminate.push_back(trainer.key);
  const bool termination_due = !trainer.terminated && now < since + options.patience;
  result->next = std::min(result->next, since + (termination_due ? options.patience : options.grace));
}

}  // namespace

TrainerKey KeyOf(const v1::TrainerOrder& order) { return {order.job_id(), order.generation(), order.role(), order.rank()}; }

std::string ToString(const TrainerKey& key) {
  return absl::StrCat("job=", key.job_id, " generation=", key.generation, " rank=", key.rank, " role=", v1::Role_Name(key.role));
}

Reconciliation Reconcile(absl::Span<const WantedTrainer> wanted, absl::Span<const ActualTrainer> actual, absl::Time now,
                         const ReconcileOptions& options) {
  Reconciliation result;
  for (const ActualTrainer& trainer : actual) {
    if (Wants(wanted, trainer.key)) continue;
    if (!trainer.ended) {
      StopUnwanted(trainer, IsSuperseded(wanted, trainer.key), now, options, &result);
    } else if (trainer.acknowledged) {
      result.forget.push_back(trainer.key);
    }
  }
  for (const WantedTrainer& order : wanted) {
    const auto running = std::find_if(actual.begin(), actual.end(), [&order](const ActualTrainer& one) { return one.key == order.key; });
    if (running == actual.end()) {
      if (!MustWait(wanted, actual, order.key)) result.start.push_back(order.key);
    } else if (!running->ended && running->told != order.word) {
      result.tell.push_back(order.key);
    }
  }
  return result;
}

}  // namespace lockstep
