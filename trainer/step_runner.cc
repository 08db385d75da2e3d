#include "trainer/step_runner.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "base/failpoint.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "memory/place.h"
#include "trainer/activity.h"

namespace lockstep {
namespace {

double SecondsSince(absl::Time start) { return absl::ToDoubleSeconds(absl::Now() - start); }

}  // namespace

template <typename T>
StepRunner<T>::StepRunner(const RunSpec& spec, const Model& model, const Recipe& recipe, Replica<T>& replica, GradientExchange<T>& exchange,
                          memory::Requests& requests, Reporter& reporter, bool trains)
    : spec_(spec),
      loss_(recipe.loss),
      replica_(replica),
      exchange_(exchange),
      requests_(requests),
      reporter_(reporter),
      thread_runs_(spec.thread_runs()) {
  for (const MetricConfig& metric : recipe.metrics) metrics_.emplace_back(metric);
  const int threads = static_cast<int>(thread_runs_.size());
  const LeafContext context{model,
                            loss_,
                            metrics_,
                            replica.gradient_layout(),
                            spec.seed,
                            spec.micro_batch,
                            replica.optimizer().loss_scale(),
                            spec.recompute.segments};
  for (int i = 0; i < threads; ++i) {
    runners_.push_back(std::make_unique<LeafRunner<T>>(context, replica, trains ? &exchange.sums() : nullptr, trains));
  }
  // Bits: libtorch splits some sums by its number of threads, so every compute thread has exactly one.
  team_ = std::make_unique<ThreadTeam>(threads, [](int) { at::set_num_threads(1); });
}

template <typename T>
std::vector<LeafResult> StepRunner<T>::RunLeaves(const std::function<LeafResult(int thread, int leaf)>& run) {
  std::vector<LeafResult> results(static_cast<size_t>(spec_.my_run().size()));
  team_->Run([&](int thread) {
    const memory::ScopedRequests scope(&requests_);
    const allreduce::LeafRange leaves = thread_runs_[static_cast<size_t>(thread)];
    for (int leaf = leaves.begin; leaf < leaves.end; ++leaf) {
      results[static_cast<size_t>(leaf - spec_.my_run().begin)] = run(thread, leaf);
    }
  });
  return results;
}

template <typename T>
std::optional<memory::Refusal> StepRunner<T>::TakeRefusal(Verdict& verdict) {
  memory::Requests::Refused refused = requests_.TakeRefused();
  if (refused.count > 0) {
    verdict.out_of_memory = true;
    verdict.error = refused.first->Text();
  }
  return std::move(refused.first);
}

template <typename T>
absl::StatusOr<StepOutcome> StepRunner<T>::Train(uint64_t step, dataset::Pipeline& pipeline, const Word& word) {
  const absl::Time start = absl::Now();
  RETURN_IF_ERROR(exchange_.BeginStep());
  requests_.Begin(spec_.rank, step);
  requests_.TakeRefused();
  Verdict verdict{word};
  reporter_.Enter(Activity::kStepBegins, step);
  LOCKSTEP_FAILPOINT("trainer.pace");
  LOCKSTEP_FAILPOINT("trainer.step");
  verdict.leaves = RunLeaves([&](int thread, int leaf) {
    if (thread == 0) reporter_.Enter("wait_for_data", step);
    const absl::Time asked = absl::Now();
    absl::StatusOr<dataset::Batch> batch = pipeline.Next(leaf);
    const double waited = SecondsSince(asked);
    if (thread == 0) reporter_.Enter("compute", step);
    LeafResult result;
    if (batch.ok()) {
      result = runners_[static_cast<size_t>(thread)]->Train(step, leaf, *batch);
    } else {
      result.leaf = leaf;
      result.error = std::string(batch.status().message());
      exchange_.sums().CompleteWithZeros(leaf).IgnoreError();
    }
    result.wait_seconds = waited;
    return result;
  });
  StepOutcome outcome;
  outcome.refusal = TakeRefusal(verdict);
  const auto threads = static_cast<double>(runners_.size());
  for (const LeafResult& leaf : verdict.leaves) {
    outcome.phases.wait_for_data += leaf.wait_seconds / threads;
    outcome.phases.forward += leaf.forward_seconds / threads;
    outcome.phases.backward += leaf.backward_seconds / threads;
  }
  const absl::Time computed = absl::Now();
  LOCKSTEP_FAILPOINT("trainer.reduce");
  reporter_.Enter(Activity::kWaitsForOthers, step);
  ASSIGN_OR_RETURN(outcome.verdict, exchange_.Finish(verdict));
  outcome.phases.reduce = SecondsSince(computed);
  const JointVerdict& joint = outcome.verdict;
  if (joint.error.empty() && !joint.out_of_memory && joint.samples > 0) {
    const absl::Time reduced = absl::Now();
    reporter_.Enter("update", step);
    LOCKSTEP_FAILPOINT("trainer.before_update");
    const memory::ScopedPhase phase(memory::Phase::kUpdate);
    memory::CpuTensorPool().Mark();
    const double divisor = loss_.Divisor(joint.samples);
    const double penalty = replica_.Commit(exchange_.reduced(), joint.samples, divisor);
    outcome.loss = joint.loss_sum / divisor + penalty;
    outcome.committed = true;
    outcome.phases.update = SecondsSince(reduced);
    LOCKSTEP_FAILPOINT("trainer.after_update");
  }
  outcome.phases.total = SecondsSince(start);
  return outcome;
}

template <typename T>
absl::StatusOr<Evaluation> StepRunner<T>::Evaluate(uint64_t steps, dataset::Pipeline& pipeline, const Word& word, const OutputSink& sink,
                                                   const PassWatcher& watcher) {
  LOCKSTEP_FAILPOINT("trainer.validate");
  reporter_.Enter("validate", 0);
  requests_.TakeRefused();
  Verdict verdict{word};
  std::vector<LeafResult> totals = NoFigures();
  for (uint64_t step = 0; step < steps; ++step) {
    std::vector<std::vector<std::pair<std::vector<int64_t>, std::vector<double>>>> outputs(totals.size());
    const std::vector<LeafResult> results = RunLeaves([&](int thread, int leaf) {
      LeafResult result;
      result.leaf = leaf;
      absl::StatusOr<dataset::Batch> batch = pipeline.Next(leaf);
      if (!batch.ok()) {
        result.error = std::string(batch.status().message());
        return result;
      }
      auto& rows = outputs[static_cast<size_t>(leaf - spec_.my_run().begin)];
      OutputSink collect;
      if (sink) collect = [&rows](const auto& ids, const auto& values) { rows.emplace_back(ids, values); };
      return runners_[static_cast<size_t>(thread)]->Evaluate(leaf, *batch, collect);
    });
    for (size_t i = 0; i < results.size(); ++i) {
      totals[i].samples += results[i].samples;
      totals[i].loss_sum += results[i].loss_sum;
      for (size_t m = 0; m < results[i].metrics.size(); ++m) {
        totals[i].metrics[m].sum += results[i].metrics[m].sum;
        totals[i].metrics[m].count += results[i].metrics[m].count;
      }
      totals[i].bad.insert(totals[i].bad.end(), results[i].bad.begin(), results[i].bad.end());
      totals[i].out_of_memory |= results[i].out_of_memory;
      if (totals[i].error.empty()) totals[i].error = results[i].error;
      for (const auto& [ids, values] : outputs[i]) sink(ids, values);
    }
    if (std::any_of(totals.begin(), totals.end(), [](const LeafResult& leaf) { return !leaf.error.empty(); })) break;
    if (watcher && !watcher(SumUp(step + 1, totals))) {
      verdict.cancel = true;
      break;
    }
  }
  verdict.leaves = std::move(totals);
  Evaluation evaluation;
  evaluation.refusal = TakeRefusal(verdict);
  ASSIGN_OR_RETURN(evaluation.verdict, exchange_.ExchangeVerdicts(verdict));
  const JointVerdict& joint = evaluation.verdict;
  if (joint.samples > 0) evaluation.loss = joint.loss_sum / static_cast<double>(joint.samples) + replica_.SumOfPenalties();
  evaluation.metrics = MetricValues(joint.metrics);
  return evaluation;
}

template <typename T>
absl::StatusOr<JointVerdict> StepRunner<T>::Compare(const Word& word) {
  Verdict verdict{word};
  verdict.leaves = NoFigures();
  reporter_.Enter("compare", 0);
  return exchange_.ExchangeVerdicts(verdict);
}

template <typename T>
std::vector<LeafResult> StepRunner<T>::NoFigures() const {
  std::vector<LeafResult> leaves(static_cast<size_t>(spec_.my_run().size()));
  for (size_t i = 0; i < leaves.size(); ++i) {
    leaves[i].leaf = spec_.my_run().begin + static_cast<int>(i);
    leaves[i].metrics.resize(metrics_.size());
  }
  return leaves;
}

template <typename T>
PassSoFar StepRunner<T>::SumUp(uint64_t batches, const std::vector<LeafResult>& totals) {
  PassSoFar so_far;
  so_far.batches = batches;
  so_far.metrics.resize(totals.front().metrics.size());
  for (const LeafResult& leaf : totals) {
    so_far.samples += leaf.samples;
    so_far.loss_sum += leaf.loss_sum;
    for (size_t m = 0; m < leaf.metrics.size(); ++m) {
      so_far.metrics[m].sum += leaf.metrics[m].sum;
      so_far.metrics[m].count += leaf.metrics[m].count;
    }
  }
  return so_far;
}

template <typename T>
NamedValues StepRunner<T>::MetricValues(const std::vector<SumAndCount>& sums) const {
  NamedValues values;
  for (size_t i = 0; i < std::min(sums.size(), metrics_.size()); ++i) {
    values.emplace_back(metrics_[i].name(), sums[i].count == 0 ? 0 : sums[i].sum / sums[i].count);
  }
  return values;
}

template class StepRunner<float>;
template class StepRunner<double>;

}  // namespace lockstep
