#pragma once
// Runs steps: hands the virtual replicas of this trainer to its compute threads, meets the peers, and commits. Also the passes
// that train nothing: validation, evaluation, prediction.
//
// A step has no effect until every replica holds the whole reduced gradient and a good verdict; what goes wrong before leaves
// parameters, statistics and optimizer as they were. Used by one thread.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "dataset/pipeline.h"
#include "memory/requests.h"
#include "model/model.h"
#include "model/training/compile_config.h"
#include "trainer/gradient_exchange.h"
#include "trainer/leaf_runner.h"
#include "trainer/records.h"
#include "trainer/replica.h"
#include "trainer/run_spec.h"
#include "trainer/thread_team.h"

namespace lockstep {

struct StepOutcome {
  JointVerdict verdict;
  bool committed = false;
  double loss = 0;                         // mean over the step's samples and the weight penalties, before the update
  std::optional<memory::Refusal> refusal;  // of this replica, where it ran out of memory: the first
  Phases phases;                           // wait, forward and backward are means over the compute threads
};

// Sums over all samples of a pass.
struct Evaluation {
  JointVerdict verdict;
  std::optional<memory::Refusal> refusal;  // as StepOutcome's
  double loss = 0;
  NamedValues metrics;
};

// What a replica has seen of its share of a pass.
struct PassSoFar {
  uint64_t batches = 0;
  int64_t samples = 0;
  double loss_sum = 0;
  std::vector<SumAndCount> metrics;
};
// Called after each batch; false ends the pass there, cancelled.
using PassWatcher = std::function<bool(const PassSoFar& so_far)>;

template <typename T>
class StepRunner {
 public:
  using OutputSink = typename LeafRunner<T>::OutputSink;

  // `trains`: gradients will be taken. `requests`: this replica's; a step, or a pass, in which one of them is refused is bad, whatever
  // became of the error. All must outlive this object.
  StepRunner(const RunSpec& spec, const Model& model, const Recipe& recipe, Replica<T>& replica, GradientExchange<T>& exchange,
             memory::Requests& requests, Reporter& reporter, bool trains);

  // `step` counts from 1 and is the random streams'.
  absl::StatusOr<StepOutcome> Train(uint64_t step, dataset::Pipeline& pipeline, const Word& word);
  // `steps` batches of the pipeline. With a sink, outputs go there and nothing is measured; it is called by one thread at a time, in
  // order of the virtual replicas within each step. The watcher may be null.
  absl::StatusOr<Evaluation> Evaluate(uint64_t steps, dataset::Pipeline& pipeline, const Word& word, const OutputSink& sink,
                                      const PassWatcher& watcher);
  // Nothing is computed: replicas only compare their words.
  absl::StatusOr<JointVerdict> Compare(const Word& word);

  NamedValues MetricValues(const std::vector<SumAndCount>& sums) const;

 private:
  // Of this replica's virtual replicas.
  std::vector<LeafResult> NoFigures() const;
  static PassSoFar SumUp(uint64_t batches, const std::vector<LeafResult>& totals);
  // What was refused since the step, or the pass, began.
  std::optional<memory::Refusal> TakeRefusal(Verdict& verdict);
  std::vector<LeafResult> RunLeaves(const std::function<LeafResult(int thread, int leaf)>& run);

  const RunSpec& spec_;
  const Loss loss_;
  std::vector<Metric> metrics_;
  Replica<T>& replica_;
  GradientExchange<T>& exchange_;
  memory::Requests& requests_;
  Reporter& reporter_;
  const std::vector<allreduce::LeafRange> thread_runs_;
  std::vector<std::unique_ptr<LeafRunner<T>>> runners_;  // by thread
  std::unique_ptr<ThreadTeam> team_;
};

extern template class StepRunner<float>;
extern template class StepRunner<double>;

}  // namespace lockstep
