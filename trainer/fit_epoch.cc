#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "trainer/fit_loop.h"

namespace lockstep {

template <typename T>
absl::StatusOr<NamedValues> Fit<T>::Validate() {
  const std::string what = absl::StrCat("validation after step ", state_.step);
  Evaluation evaluation;
  for (bool again = true; again && !state_.ended;) {
    ASSIGN_OR_RETURN(const std::unique_ptr<dataset::Pipeline> pipeline, data_.ValidationPipeline());
    ASSIGN_OR_RETURN(evaluation, place_.runner().Evaluate(data_.validation_steps(), *pipeline, MyWord(), nullptr, nullptr));
    Heed(evaluation.verdict);
    again = evaluation.verdict.out_of_memory;
    if (again) RETURN_IF_ERROR(TakeAgain(what, evaluation.verdict, evaluation.refusal));
  }
  if (state_.ended) return NamedValues();
  remedies_.again = 0;
  const JointVerdict& verdict = evaluation.verdict;
  if (!verdict.error.empty()) {
    End(Ending::kFailed, absl::StrCat(what, ": ", verdict.error));
  } else {
    CountBad(verdict.bad, data_.validation(), "validation");
  }
  NamedValues values = {{"loss", evaluation.loss}};
  values.insert(values.end(), evaluation.metrics.begin(), evaluation.metrics.end());
  return values;
}

template <typename T>
absl::Status Fit<T>::EndEpoch() {
  // A run of so many steps may end within an epoch, which then does not count as a pass, but is validated and reported.
  const uint32_t ended = state_.epoch + (state_.batch >= StepsPerEpoch() ? 1 : 0);
  EpochFigures figures;
  figures.epoch = state_.sums.epoch;
  figures.step = state_.step;
  figures.samples = state_.sums.samples;
  figures.loss = state_.sums.samples > 0 ? state_.sums.loss / static_cast<double>(state_.sums.samples) : 0;
  figures.metrics = place_.runner().MetricValues(state_.sums.metrics);
  figures.learning_rate = replica_.LearningRate();
  if (data_.has_validation()) {
    ASSIGN_OR_RETURN(figures.validation, Validate());
    state_.epoch = ended;
    if (state_.ended) return absl::OkStatus();
    if (state_.epoch == 1) account_.Settle(Owned());
  }
  figures.bad_samples = state_.sums.bad;
  figures.wall_seconds = absl::ToDoubleSeconds(absl::Now() - epoch_start_);
  state_.epoch = ended;
  EpochLogs logs = {{"loss", figures.loss}};
  logs.insert(logs.end(), figures.metrics.begin(), figures.metrics.end());
  for (const auto& [name, value] : figures.validation) logs.emplace_back(absl::StrCat("val_", name), value);
  state_.last_epoch = figures;
  reporter_.Epoch(std::move(figures));
  if (spec_.ranks() == 1) reporter_.Agreed(state_.step);
  RETURN_IF_ERROR(Decide(logs));
  state_.sums = EpochSums();
  state_.sums.epoch = state_.epoch + 1;
  state_.batch = 0;
  ++state_.ends;
  epoch_start_ = absl::Now();
  return absl::OkStatus();
}

template <typename T>
absl::Status Fit<T>::Decide(const EpochLogs& logs) {
  const int64_t epoch = static_cast<int64_t>(state_.sums.epoch) - 1;  // Keras counts from 0
  if (callbacks_.best && callbacks_.best->OnEpochEnd(epoch, logs, state_.best)) {
    // On every replica: whichever is rank 0 at the end stores it.
    RETURN_IF_ERROR(WriteArchive("best.keras"));
  }
  if (callbacks_.plateau) {
    const double before = replica_.LearningRate();
    if (const auto rate = callbacks_.plateau->OnEpochEnd(logs, before, state_.plateau)) {
      RETURN_IF_ERROR(replica_.SetLearningRate(*rate));
      reporter_.Note(absl::StrCat("epoch ", epoch + 1, ": learning rate reduced from ", before, " to ", *rate));
    }
  }
  if (callbacks_.early_stopping) {
    const EarlyStopping::Decision decision = callbacks_.early_stopping->OnEpochEnd(epoch, logs, state_.early_stopping);
    if (decision.keep_weights) {
      RETURN_IF_ERROR(replica_.SaveWeights(Scratch("best.weights")));
      state_.weights_kept = true;
    }
    if (decision.stop) {
      state_.note = absl::StrCat("stopped early after epoch ", epoch + 1, ": ", callbacks_.early_stopping->monitor().metric,
                                 " did not improve for ", callbacks_.early_stopping->options().patience, " epochs");
      state_.ended = true;
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status Fit<T>::Finish() {
  replica_.FinishTraining();
  if (state_.weights_kept) {
    RETURN_IF_ERROR(replica_.RestoreWeights(Scratch("best.weights")));
    absl::StrAppend(&state_.note, state_.note.empty() ? "" : "; ", "weights of epoch ", state_.early_stopping.best_epoch + 1, " restored");
  }
  state_.finished = true;
  return absl::OkStatus();
}

template <typename T>
absl::Status Fit<T>::WriteResults() {
  reporter_.Status({.phase = "saving", .step = state_.step, .epoch = state_.epoch});
  RETURN_IF_ERROR(WriteArchive("trained.keras"));
  outcome_.artifacts.emplace_back("trained.keras");
  if (callbacks_.best && state_.best.has_best != 0) outcome_.artifacts.emplace_back("best.keras");
  return absl::OkStatus();
}

template class Fit<float>;
template class Fit<double>;

}  // namespace lockstep
