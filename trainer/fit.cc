#include "trainer/fit.h"

#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "trainer/callbacks.h"

namespace lockstep {
namespace {

constexpr absl::Duration kStatusEvery = absl::Seconds(1);

void AddPhases(const Phases& from, Phases& to) {
  to.wait_for_data += from.wait_for_data;
  to.forward += from.forward;
  to.backward += from.backward;
  to.reduce += from.reduce;
  to.update += from.update;
  to.total += from.total;
}

// Figures of an epoch, gathered step by step in float64 in the order of steps: the same on every replica.
struct EpochSums {
  double loss = 0;
  std::vector<SumAndCount> metrics;
  uint64_t samples = 0;
  uint32_t epoch = 1;
  std::vector<std::string> bad;
  absl::Time start = absl::Now();
};

template <typename T>
class Fit {
 public:
  Fit(const RunSpec& spec, const RunFiles& files, const DataSource& data, MemoryAccount& account, Replica<T>& replica,
      GradientExchange<T>& exchange, StepRunner<T>& runner, Reporter& reporter)
      : spec_(spec),
        files_(files),
        data_(data),
        account_(account),
        replica_(replica),
        exchange_(exchange),
        runner_(runner),
        reporter_(reporter) {}

  absl::Status Prepare(const Recipe& recipe);
  absl::StatusOr<RunOutcome> Run();

 private:
  bool StepsLeft() const { return spec_.steps == 0 || step_ < spec_.steps; }
  bool EpochsLeft() const { return spec_.epochs == 0 || epoch_ < spec_.epochs; }
  absl::Status RunEpoch();
  absl::Status RunStep();
  // False: the run ends with outcome_.
  bool Accept(const StepOutcome& step);
  bool CountBad(const std::vector<BadSample>& bad, const dataset::Index& index, const char* data_set);
  void Report(const StepOutcome& step);
  absl::Status EndEpoch();
  absl::StatusOr<NamedValues> Validate();
  absl::Status Decide(const EpochLogs& logs);
  absl::Status Finish();
  void End(Ending ending, std::string reason);
  std::string Scratch(const char* name) const { return absl::StrCat(spec_.scratch, "/", name); }
  OwnedBytes Owned() const;

  const RunSpec& spec_;
  const RunFiles& files_;
  const DataSource& data_;
  MemoryAccount& account_;
  Replica<T>& replica_;
  GradientExchange<T>& exchange_;
  StepRunner<T>& runner_;
  Reporter& reporter_;

  Callbacks callbacks_;
  std::unique_ptr<dataset::Pipeline> pipeline_;
  RunOutcome outcome_;
  bool ended_ = false;
  bool cancelled_ = false;
  bool weights_kept_ = false;
  uint64_t step_ = 0;   // committed
  uint32_t epoch_ = 0;  // ended
  EpochSums sums_;
  std::string state_hash_;
  std::map<int64_t, std::string> bad_samples_;
  std::map<int64_t, std::string> bad_validation_samples_;
  Phases phase_totals_;
  uint64_t images_ = 0;
  absl::Time last_status_ = absl::InfinitePast();
};

template <typename T>
absl::Status Fit<T>::Prepare(const Recipe& recipe) {
  ASSIGN_OR_RETURN(callbacks_, MakeCallbacks(spec_, recipe, data_.has_validation()));
  ASSIGN_OR_RETURN(pipeline_, data_.TrainPipeline());
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<RunOutcome> Fit<T>::Run() {
  const absl::Time start = absl::Now();
  while (!ended_ && !cancelled_ && StepsLeft() && EpochsLeft()) RETURN_IF_ERROR(RunEpoch());
  if (!ended_) {
    if (cancelled_) End(Ending::kCancelled, absl::StrCat("cancelled after step ", step_));
    if (!cancelled_) RETURN_IF_ERROR(Finish());
  }
  ResultFigures& result = outcome_.result;
  result.steps = step_;
  result.epochs = epoch_;
  result.samples = images_;
  result.state_hash = replica_.Hash();
  result.wall_seconds = absl::ToDoubleSeconds(absl::Now() - start);
  result.images_per_second = phase_totals_.total > 0 ? static_cast<double>(images_) / phase_totals_.total : 0;
  result.memory = account_.Take(Owned());
  return outcome_;
}

template <typename T>
absl::Status Fit<T>::RunEpoch() {
  sums_ = EpochSums();
  sums_.epoch = epoch_ + 1;
  const auto steps = static_cast<uint64_t>(data_.train_sampler().StepsPerEpoch());
  uint64_t done = 0;
  while (done < steps && StepsLeft() && !ended_ && !cancelled_) {
    RETURN_IF_ERROR(RunStep());
    ++done;
  }
  if (ended_ || cancelled_) return absl::OkStatus();
  // A run of so many steps may end within an epoch, which then does not count as a pass, but is validated and reported.
  if (done == steps) ++epoch_;
  return EndEpoch();
}

template <typename T>
absl::Status Fit<T>::RunStep() {
  ASSIGN_OR_RETURN(const StepOutcome step, runner_.Train(step_ + 1, *pipeline_, reporter_.CancelWanted(), state_hash_));
  if (!Accept(step)) return absl::OkStatus();
  Report(step);
  return absl::OkStatus();
}

template <typename T>
bool Fit<T>::Accept(const StepOutcome& step) {
  const JointVerdict& verdict = step.verdict;
  cancelled_ = verdict.cancel;
  if (verdict.out_of_memory) {
    End(Ending::kOutOfMemory, absl::StrCat("step ", step_ + 1, " ran out of memory: ", verdict.error,
                                           ". A smaller batch, fewer threads side by side (replicas.threads) or a higher "
                                           "memory limit would do"));
    return false;
  }
  if (!verdict.error.empty()) {
    End(Ending::kFailed, absl::StrCat("step ", step_ + 1, ": ", verdict.error));
    return false;
  }
  if (!CountBad(verdict.bad, data_.train(), "training")) return false;
  if (!step.committed) return false;  // none of its samples could be decoded
  if (!std::isfinite(step.loss)) {
    End(Ending::kFailed,
        absl::StrCat("the loss is not finite after step ", step_ + 1, "; a smaller learning rate or clipping (clipnorm) may help"));
    return false;
  }
  return true;
}

template <typename T>
bool Fit<T>::CountBad(const std::vector<BadSample>& bad, const dataset::Index& index, const char* data_set) {
  std::map<int64_t, std::string>& known = &index == &data_.train() ? bad_samples_ : bad_validation_samples_;
  for (const BadSample& sample : bad) {
    const std::string line = absl::StrCat(index.PathOf(sample.sample), ": ", sample.reason);
    sums_.bad.push_back(line);
    if (known.emplace(sample.sample, sample.reason).second) reporter_.Note(absl::StrCat("left out ", line));
    if (bad_samples_.size() + bad_validation_samples_.size() > spec_.skip_bad) {
      End(Ending::kBadInput,
          absl::StrCat("a ", data_set, " picture cannot be used: ", line, " (data.bad_samples.skip allows ", spec_.skip_bad, ")"));
      return false;
    }
  }
  return true;
}

template <typename T>
OwnedBytes Fit<T>::Owned() const {
  OwnedBytes owned = exchange_.owned_bytes();
  owned.input_pipeline = static_cast<int64_t>(pipeline_->stats().bytes);
  owned.in_heap += owned.input_pipeline;
  return owned;
}

template <typename T>
void Fit<T>::Report(const StepOutcome& step) {
  ++step_;
  if (step_ == 1) account_.Settle(Owned());
  const JointVerdict& verdict = step.verdict;
  const auto samples = static_cast<uint64_t>(verdict.samples);
  images_ += samples;
  sums_.samples += samples;
  sums_.loss += step.loss * static_cast<double>(samples);
  sums_.metrics.resize(verdict.metrics.size());
  for (size_t i = 0; i < verdict.metrics.size(); ++i) {
    sums_.metrics[i].sum += verdict.metrics[i].sum;
    sums_.metrics[i].count += verdict.metrics[i].count;
  }
  AddPhases(step.phases, phase_totals_);
  const bool hash_now = step_ % static_cast<uint64_t>(spec_.state_hash_every) == 0;
  state_hash_ = hash_now ? replica_.Hash() : std::string();
  const bool status_now = absl::Now() - last_status_ >= kStatusEvery;
  if (spec_.rank != 0 && !status_now) return;

  StepFigures figures;
  figures.step = step_;
  figures.epoch = sums_.epoch;
  figures.loss = step.loss;
  figures.state_hash = state_hash_;
  figures.metrics = runner_.MetricValues(verdict.metrics);
  figures.samples = static_cast<uint32_t>(samples);
  for (const int64_t id : verdict.sample_ids) figures.sample_paths.push_back(data_.train().PathOf(id));
  figures.phases = step.phases;
  figures.images_per_second = step.phases.total > 0 ? static_cast<double>(samples) / step.phases.total : 0;
  figures.sample_digest = verdict.sample_digest;
  if (status_now) {
    last_status_ = absl::Now();
    figures.memory = account_.Take(Owned());
    const dataset::PipelineStats pipeline = pipeline_->stats();
    reporter_.Status({"training", step_, figures.epoch, step.loss, figures.images_per_second, phase_totals_,
                      static_cast<uint64_t>(exchange_.exchanged_bytes()), static_cast<uint64_t>(pipeline.bytes),
                      static_cast<uint32_t>(pipeline.depth), figures.memory, images_});
  }
  if (spec_.rank == 0) reporter_.Step(std::move(figures));
}

template <typename T>
absl::StatusOr<NamedValues> Fit<T>::Validate() {
  ASSIGN_OR_RETURN(const std::unique_ptr<dataset::Pipeline> pipeline, data_.ValidationPipeline());
  ASSIGN_OR_RETURN(const Evaluation evaluation,
                   runner_.Evaluate(data_.validation_steps(), *pipeline, reporter_.CancelWanted(), nullptr, nullptr));
  const JointVerdict& verdict = evaluation.verdict;
  cancelled_ |= verdict.cancel;
  if (!verdict.error.empty()) {
    End(verdict.out_of_memory ? Ending::kOutOfMemory : Ending::kFailed, absl::StrCat("validation after step ", step_, ": ", verdict.error));
  } else {
    CountBad(verdict.bad, data_.validation(), "validation");
  }
  NamedValues values = {{"loss", evaluation.loss}};
  values.insert(values.end(), evaluation.metrics.begin(), evaluation.metrics.end());
  return values;
}

template <typename T>
absl::Status Fit<T>::EndEpoch() {
  EpochFigures figures;
  figures.epoch = sums_.epoch;
  figures.step = step_;
  figures.samples = sums_.samples;
  figures.loss = sums_.samples > 0 ? sums_.loss / static_cast<double>(sums_.samples) : 0;
  figures.metrics = runner_.MetricValues(sums_.metrics);
  figures.learning_rate = replica_.LearningRate();
  if (data_.has_validation()) {
    ASSIGN_OR_RETURN(figures.validation, Validate());
    if (ended_) return absl::OkStatus();
    if (epoch_ == 1) account_.Settle(Owned());
  }
  figures.bad_samples = sums_.bad;
  figures.wall_seconds = absl::ToDoubleSeconds(absl::Now() - sums_.start);
  outcome_.result.loss = figures.loss;
  outcome_.result.metrics = figures.metrics;
  outcome_.result.validation = figures.validation;
  EpochLogs logs = {{"loss", figures.loss}};
  logs.insert(logs.end(), figures.metrics.begin(), figures.metrics.end());
  for (const auto& [name, value] : figures.validation) logs.emplace_back(absl::StrCat("val_", name), value);
  if (spec_.rank == 0) reporter_.Epoch(std::move(figures));
  return Decide(logs);
}

template <typename T>
absl::Status Fit<T>::Decide(const EpochLogs& logs) {
  const int64_t epoch = static_cast<int64_t>(sums_.epoch) - 1;  // Keras counts from 0
  if (callbacks_.best && callbacks_.best->OnEpochEnd(epoch, logs, callbacks_.best_state) && spec_.rank == 0) {
    RETURN_IF_ERROR(replica_.WriteArchive(files_.model, Scratch("best.keras")));
  }
  if (callbacks_.plateau) {
    const double before = replica_.LearningRate();
    if (const auto rate = callbacks_.plateau->OnEpochEnd(logs, before, callbacks_.plateau_state)) {
      RETURN_IF_ERROR(replica_.SetLearningRate(*rate));
      reporter_.Note(absl::StrCat("epoch ", epoch + 1, ": learning rate reduced from ", before, " to ", *rate));
    }
  }
  if (callbacks_.early_stopping) {
    const EarlyStopping::Decision decision = callbacks_.early_stopping->OnEpochEnd(epoch, logs, callbacks_.early_stopping_state);
    if (decision.keep_weights) {
      RETURN_IF_ERROR(replica_.SaveWeights(Scratch("best.weights")));
      weights_kept_ = true;
    }
    if (decision.stop) {
      outcome_.result.note = absl::StrCat("stopped early after epoch ", epoch + 1, ": ", callbacks_.early_stopping->monitor().metric,
                                          " did not improve for ", callbacks_.early_stopping->options().patience, " epochs");
      RETURN_IF_ERROR(Finish());
      ended_ = true;
    }
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status Fit<T>::Finish() {
  replica_.FinishTraining();
  if (weights_kept_) {
    RETURN_IF_ERROR(replica_.RestoreWeights(Scratch("best.weights")));
    absl::StrAppend(&outcome_.result.note, outcome_.result.note.empty() ? "" : "; ", "weights of epoch ",
                    callbacks_.early_stopping_state.best_epoch + 1, " restored");
  }
  if (spec_.rank == 0) {
    reporter_.Status({.phase = "saving", .step = step_, .epoch = epoch_});
    RETURN_IF_ERROR(replica_.WriteArchive(files_.model, Scratch("trained.keras")));
    outcome_.artifacts.emplace_back("trained.keras");
    if (callbacks_.best && callbacks_.best_state.has_best != 0) outcome_.artifacts.emplace_back("best.keras");
  }
  outcome_.ending = Ending::kDone;
  return absl::OkStatus();
}

template <typename T>
void Fit<T>::End(Ending ending, std::string reason) {
  ended_ = true;
  outcome_.ending = ending;
  outcome_.reason = std::move(reason);
}

}  // namespace

template <typename T>
absl::StatusOr<RunOutcome> RunFit(const RunSpec& spec, const RunFiles& files, const Recipe& recipe, const DataSource& data,
                                  MemoryAccount& account, Replica<T>& replica, GradientExchange<T>& exchange, StepRunner<T>& runner,
                                  Reporter& reporter) {
  Fit<T> fit(spec, files, data, account, replica, exchange, runner, reporter);
  RETURN_IF_ERROR(fit.Prepare(recipe));
  return fit.Run();
}

template absl::StatusOr<RunOutcome> RunFit(const RunSpec&, const RunFiles&, const Recipe&, const DataSource&, MemoryAccount&,
                                           Replica<float>&, GradientExchange<float>&, StepRunner<float>&, Reporter&);
template absl::StatusOr<RunOutcome> RunFit(const RunSpec&, const RunFiles&, const Recipe&, const DataSource&, MemoryAccount&,
                                           Replica<double>&, GradientExchange<double>&, StepRunner<double>&, Reporter&);

}  // namespace lockstep
