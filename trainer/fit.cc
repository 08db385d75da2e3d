#include "trainer/fit.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/failpoint.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "trainer/equalize.h"
#include "trainer/fit_loop.h"
#include "trainer/process_figures.h"

namespace lockstep {
namespace {

constexpr absl::Duration kStatusEvery = absl::Seconds(1);
constexpr size_t kMostInHand = 16;  // samples that are named
constexpr absl::Duration kInHandEvery = absl::Milliseconds(200);
constexpr int64_t kLeak = 50 << 20;  // of a drill

void AddPhases(const Phases& from, Phases& to) {
  to.wait_for_data += from.wait_for_data;
  to.forward += from.forward;
  to.backward += from.backward;
  to.reduce += from.reduce;
  to.update += from.update;
  to.total += from.total;
}

}  // namespace

template <typename T>
absl::Status Fit<T>::Prepare(const Recipe& recipe) {
  ASSIGN_OR_RETURN(callbacks_, MakeCallbacks(spec_, recipe, data_.has_validation()));
  if (!spec_.joins) RETURN_IF_ERROR(Restore());
  RETURN_IF_ERROR(place_.Enter());
  const absl::Status equal = CatchUp();
  return IsPeersTrouble(equal) ? GoOn(equal) : equal.ok() ? MakePipeline() : equal;
}

template <typename T>
absl::Status Fit<T>::Restore() {
  for (const std::string& name : spec_.checkpoints) {
    const std::string path = Scratch(name.c_str());
    absl::Status status = storage_.fetch(name, path);
    if (status.ok()) {
      status = ReadCheckpoint<T>(path, spec_, model_, replica_, state_, {Scratch("best.keras"), Scratch("best.weights")});
    }
    unlink(path.c_str());
    if (status.ok()) {
      reporter_.TakeRecords(std::exchange(state_.records, {}));
      // It was paused then, and goes on now.
      if (state_.ending == Ending::kPaused) state_.ended = false, state_.ending = Ending::kDone, state_.reason.clear();
      LOG_INFO("job=%s generation=%d checkpoint=%s step=%d event=restored", spec_.job_id, spec_.generation, name, state_.step);
      return absl::OkStatus();
    }
    if (!absl::IsDataLoss(status) && !absl::IsNotFound(status)) return status;
    reporter_.Note(absl::StrCat("passed over a damaged checkpoint: ", status.message()));
  }
  return absl::OkStatus();
}

template <typename T>
absl::Status Fit<T>::MakePipeline() {
  if (!WorkLeft()) return absl::OkStatus();
  told_in_hand_ = absl::InfinitePast();
  const bool at_end = state_.batch >= StepsPerEpoch();
  ASSIGN_OR_RETURN(pipeline_, data_.TrainPipeline(state_.epoch + (at_end ? 1 : 0), at_end ? 0 : static_cast<int64_t>(state_.batch)));
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<RunOutcome> Fit<T>::Run() {
  const absl::Time start = absl::Now();
  const memory::ScopedRequests requests(&place_.requests());
  while (!over_) {
    absl::Status status = WorkLeft() ? Advance() : Conclude();
    if (status.ok() && !state_.ended && !state_.finished) {
      if (cancel_) End(Ending::kCancelled, absl::StrCat("cancelled after step ", state_.step));
      if (pause_ && !cancel_ && WorkLeft()) End(Ending::kPaused, absl::StrCat("paused after step ", state_.step));
    }
    if (status.ok() && !over_ && newest_generation_ > spec_.generation) {
      status = absl::AbortedError(absl::StrCat("generation ", newest_generation_, " has other members"));
    }
    RETURN_IF_ERROR(IsPeersTrouble(status) ? GoOn(status) : status);
  }
  LogLive();
  outcome_.ending = state_.ending;
  outcome_.reason = state_.reason;
  ResultFigures& result = outcome_.result;
  result.loss = state_.last_epoch.loss;
  result.metrics = state_.last_epoch.metrics;
  result.validation = state_.last_epoch.validation;
  result.note = state_.note;
  result.steps = state_.step;
  result.epochs = state_.epoch;
  result.samples = state_.images;
  result.state_hash = replica_.Hash();
  result.wall_seconds = absl::ToDoubleSeconds(absl::Now() - start);
  result.images_per_second = phase_totals_.total > 0 ? static_cast<double>(state_.images) / phase_totals_.total : 0;
  result.memory = account_.Take(Owned());
  return outcome_;
}

template <typename T>
absl::Status Fit<T>::Advance() {
  if (state_.batch < StepsPerEpoch() && StepsLeft()) return RunStep();
  return EndEpoch();
}

template <typename T>
absl::Status Fit<T>::Conclude() {
  // A replica that died in the last step may have taken it from others: all must have it before anybody leaves.
  ASSIGN_OR_RETURN(const JointVerdict verdict, place_.runner().Compare(MyWord()));
  Heed(verdict);
  LOCKSTEP_FAILPOINT("trainer.finish");
  if (state_.ending == Ending::kDone && !state_.finished) RETURN_IF_ERROR(Finish());
  if (spec_.rank == 0) {
    if (state_.ending == Ending::kPaused) RETURN_IF_ERROR(Checkpoints()->Write(state_));
    over_ = true;
    return state_.ending == Ending::kDone ? WriteResults() : absl::OkStatus();
  }
  ASSIGN_OR_RETURN(over_, place_.AwaitEnd());
  return over_ ? absl::OkStatus() : CatchUp();
}

template <typename T>
absl::Status Fit<T>::GoOn(absl::Status why) {
  const absl::Time begun = absl::Now();
  pipeline_.reset();
  while (IsPeersTrouble(why)) {
    RETURN_IF_ERROR(place_.Move(why));
    why = CatchUp();
  }
  RETURN_IF_ERROR(why);
  RETURN_IF_ERROR(MakePipeline());
  ++pauses_.count;
  pauses_.last_seconds = absl::ToDoubleSeconds(absl::Now() - begun);
  pauses_.seconds += pauses_.last_seconds;
  LOG_INFO("job=%s generation=%d step=%d event=resumed seconds=%.3f", spec_.job_id, spec_.generation, state_.step, pauses_.last_seconds);
  return absl::OkStatus();
}

template <typename T>
absl::Status Fit<T>::CatchUp() {
  const uint64_t step = state_.step;
  const uint64_t ends = state_.ends;
  RETURN_IF_ERROR(Equalize<T>(spec_, place_.exchange(), replica_, state_, reporter_));
  // Whoever told before may have died before it told this.
  if (state_.step > step) reporter_.Step(state_.last_step);
  if (state_.ends > ends) reporter_.Epoch(state_.last_epoch);
  return absl::OkStatus();
}

template <typename T>
void Fit<T>::TellInHand() {
  if (state_.batch >= StepsPerEpoch() || absl::Now() - told_in_hand_ < kInHandEvery) return;
  told_in_hand_ = absl::Now();
  std::vector<int64_t> samples;
  for (int leaf = 0; leaf < spec_.virtual_replicas; ++leaf) {
    const std::vector<int64_t> some = data_.train_sampler().Samples(state_.epoch, static_cast<int64_t>(state_.batch), leaf);
    samples.insert(samples.end(), some.begin(), some.end());
  }
  std::string text = absl::StrCat("step ", state_.step + 1, ":");
  for (size_t i = 0; i < std::min(samples.size(), kMostInHand); ++i) absl::StrAppend(&text, " ", data_.train().PathOf(samples[i]));
  if (samples.size() > kMostInHand) absl::StrAppend(&text, " and ", samples.size() - kMostInHand, " more");
  reporter_.InHand(std::move(text));
}

template <typename T>
Word Fit<T>::MyWord() const {
  return {.cancel = reporter_.CancelWanted(),
          .pause = reporter_.PauseWanted(),
          .state_hash = state_.state_hash,
          .durable_step = reporter_.DurableStep(),
          .newest_generation = reporter_.NewestGeneration()};
}

template <typename T>
CheckpointWriter<T>* Fit<T>::Checkpoints() {
  if (spec_.rank != 0 || !storage_.store) return nullptr;
  if (checkpoints_ == nullptr) checkpoints_ = std::make_unique<CheckpointWriter<T>>(spec_, model_, replica_, storage_, reporter_);
  return checkpoints_.get();
}

template <typename T>
void Fit<T>::Heed(const JointVerdict& verdict) {
  reporter_.Agreed(state_.step);
  if (checkpoints_ != nullptr) checkpoints_->Agreed(state_.step);
  reporter_.Forget(verdict.durable_step);
  newest_generation_ = std::max(newest_generation_, verdict.newest_generation);
  cancel_ |= verdict.cancel;
  pause_ = verdict.pause;
}

template <typename T>
absl::Status Fit<T>::RunStep() {
  TellInHand();
  ASSIGN_OR_RETURN(const StepOutcome step, place_.runner().Train(state_.step + 1, *pipeline_, MyWord()));
  Heed(step.verdict);
  if (step.verdict.out_of_memory) {
    pipeline_.reset();
    RETURN_IF_ERROR(TakeAgain(absl::StrCat("step ", state_.step + 1), step.verdict, step.refusal));
    return MakePipeline();
  }
  remedies_.again = 0;
  ++state_.batch;
  if (Accept(step)) {
    Report(step);
    if (CheckpointWriter<T>* writer = Checkpoints(); writer != nullptr && writer->IsDue(state_.step)) {
      writer->Begin(state_);
      if (spec_.ranks() == 1) writer->Agreed(state_.step);
    }
  }
  return absl::OkStatus();
}

template <typename T>
bool Fit<T>::Accept(const StepOutcome& step) {
  const JointVerdict& verdict = step.verdict;
  if (!verdict.error.empty()) {
    End(Ending::kFailed, absl::StrCat("step ", state_.step + 1, ": ", verdict.error));
    return false;
  }
  if (!CountBad(verdict.bad, data_.train(), "training")) return false;
  if (!step.committed) return false;  // none of its samples could be decoded
  if (!std::isfinite(step.loss)) {
    End(Ending::kFailed,
        absl::StrCat("the loss is not finite after step ", state_.step + 1, "; a smaller learning rate or clipping (clipnorm) may help"));
    return false;
  }
  return true;
}

template <typename T>
bool Fit<T>::CountBad(const std::vector<BadSample>& bad, const dataset::Index& index, const char* data_set) {
  std::map<int64_t, std::string>& known = &index == &data_.train() ? state_.bad_samples : state_.bad_validation_samples;
  for (const BadSample& sample : bad) {
    const std::string line = absl::StrCat(index.PathOf(sample.sample), ": ", sample.reason);
    state_.sums.bad.push_back(line);
    if (known.emplace(sample.sample, sample.reason).second) reporter_.Note(absl::StrCat("left out ", line));
    if (state_.bad_samples.size() + state_.bad_validation_samples.size() > spec_.skip_bad) {
      End(Ending::kBadInput,
          absl::StrCat("a ", data_set, " picture cannot be used: ", line, " (data.bad_samples.skip allows ", spec_.skip_bad, ")"));
      return false;
    }
  }
  return true;
}

template <typename T>
void Fit<T>::LogLive() const {
  const memory::BlockPool::Usage usage = memory::CpuTensorPool().GetUsage();
  std::string live;
  for (size_t i = 0; i < memory::kCategories; ++i) {
    const auto category = static_cast<memory::Category>(i);
    if (category != memory::Category::kAllocatorSlack && usage.live[category] > 0) {
      absl::StrAppend(&live, " ", std::string(memory::CategoryName(category)), "=", usage.live[category]);
    }
  }
  LOG_INFO("job=%s rank=%d step=%d event=live_tensors retries=%d refused=%d%s", spec_.job_id, spec_.rank, state_.step, retries_,
           usage.refused, live);
}

template <typename T>
OwnedBytes Fit<T>::Owned() const {
  OwnedBytes owned = place_.exchange().owned_bytes();
  owned.input_pipeline = pipeline_ == nullptr ? 0 : static_cast<int64_t>(pipeline_->stats().bytes);
  owned.in_heap += owned.input_pipeline;
  return owned;
}

template <typename T>
void Fit<T>::Report(const StepOutcome& step) {
  ++state_.step;
  if (!std::exchange(settled_, true)) account_.Settle(Owned());
  const JointVerdict& verdict = step.verdict;
  const auto samples = static_cast<uint64_t>(verdict.samples);
  state_.images += samples;
  state_.sums.samples += samples;
  state_.sums.loss += step.loss * static_cast<double>(samples);
  state_.sums.metrics.resize(verdict.metrics.size());
  for (size_t i = 0; i < verdict.metrics.size(); ++i) {
    state_.sums.metrics[i].sum += verdict.metrics[i].sum;
    state_.sums.metrics[i].count += verdict.metrics[i].count;
  }
  AddPhases(step.phases, phase_totals_);
  const bool hash_now = state_.step % static_cast<uint64_t>(spec_.state_hash_every) == 0;
  state_.state_hash = hash_now ? replica_.Hash() : std::string();
  if (LOCKSTEP_FAILPOINT("trainer.leak")) LeakHeap(kLeak);
  if (LOCKSTEP_FAILPOINT("trainer.flip_bit")) replica_.FlipBit(), state_.state_hash = replica_.Hash();
  const bool status_now = absl::Now() - last_status_ >= kStatusEvery;
  StepFigures figures;
  figures.step = state_.step;
  figures.committed_unix_us = absl::ToUnixMicros(absl::Now());
  figures.epoch = state_.sums.epoch;
  figures.loss = step.loss;
  figures.state_hash = state_.state_hash;
  figures.metrics = place_.runner().MetricValues(verdict.metrics);
  figures.samples = static_cast<uint32_t>(samples);
  figures.leaves = verdict.leaves;
  for (const LeafUse& leaf : verdict.leaves) {
    if (!spec_.log_samples) break;
    for (const int64_t id : leaf.Good()) figures.sample_paths.push_back(data_.train().PathOf(id));
  }
  figures.phases = step.phases;
  figures.images_per_second = step.phases.total > 0 ? static_cast<double>(samples) / step.phases.total : 0;
  figures.sample_digest = verdict.sample_digest;
  if (status_now) {
    last_status_ = absl::Now();
    figures.memory = account_.Take(Owned());
    const dataset::PipelineStats pipeline = pipeline_->stats();
    reporter_.Status({"training", state_.step, figures.epoch, step.loss, figures.images_per_second, phase_totals_,
                      static_cast<uint64_t>(place_.exchange().exchanged_bytes()), static_cast<uint64_t>(pipeline.bytes),
                      static_cast<uint32_t>(pipeline.depth), figures.memory, state_.images,
                      checkpoints_ == nullptr ? CheckpointFigures() : checkpoints_->figures(), pauses_, retries_,
                      static_cast<uint64_t>(memory::CpuTensorPool().GetUsage().refused)});
  }
  state_.last_step = figures;
  reporter_.Step(std::move(figures));
  if (spec_.ranks() == 1) reporter_.Agreed(state_.step);
}

template <typename T>
void Fit<T>::End(Ending ending, std::string reason) {
  state_.ended = true;
  state_.ending = ending;
  state_.reason = std::move(reason);
}

template class Fit<float>;
template class Fit<double>;

template <typename T>
absl::StatusOr<RunOutcome> RunFit(const RunSpec& spec, const RunFiles& files, const Model& model, const Recipe& recipe,
                                  const DataSource& data, MemoryAccount& account, Replica<T>& replica, Place<T>& place,
                                  const CheckpointStorage& storage, Reporter& reporter) {
  Fit<T> fit(spec, files, model, data, account, replica, place, storage, reporter);
  RETURN_IF_ERROR(fit.Prepare(recipe));
  return fit.Run();
}

template absl::StatusOr<RunOutcome> RunFit(const RunSpec&, const RunFiles&, const Model&, const Recipe&, const DataSource&, MemoryAccount&,
                                           Replica<float>&, Place<float>&, const CheckpointStorage&, Reporter&);
template absl::StatusOr<RunOutcome> RunFit(const RunSpec&, const RunFiles&, const Model&, const Recipe&, const DataSource&, MemoryAccount&,
                                           Replica<double>&, Place<double>&, const CheckpointStorage&, Reporter&);

}  // namespace lockstep
