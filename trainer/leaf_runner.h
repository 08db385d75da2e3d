#pragma once
// What one compute thread does for one virtual replica (a leaf of the reduction's tree): forward, loss, metrics, backward, and its
// gradients handed to the sums while backward still runs. Belongs to one thread.
//
// Trouble (out of memory, a hostile model) ends here: the leaf's gradient is completed with zeros, the result says what happened,
// and the verdict makes every replica discard the step alike.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "allreduce/leaf_sums.h"
#include "dataset/pipeline.h"
#include "memory/segments.h"
#include "model/model.h"
#include "model/recompute.h"
#include "model/training/loss.h"
#include "model/training/metric.h"
#include "trainer/leaf_result.h"
#include "trainer/replica.h"

namespace lockstep {

// The parts of a job that all compute threads share.
struct LeafContext {
  const Model& model;
  const Loss& loss;
  const std::vector<Metric>& metrics;
  const GradientLayout& gradients;
  uint64_t seed = 0;
  int micro_batch = 0;
  double loss_scale = 1;
  absl::Span<const Segment> recomputed;  // of the graph, in training
};

template <typename T>
class LeafRunner {
 public:
  // Receives (sample ids, output rows as float64, row-major) of a leaf.
  using OutputSink = std::function<void(const std::vector<int64_t>& samples, const std::vector<double>& rows)>;

  // `sums` is null where nothing is trained, or where gradients go nowhere, in planning (TrainOn). All must outlive this object.
  LeafRunner(LeafContext context, const Replica<T>& replica, allreduce::LeafSums<T>* sums, bool trains);

  // A training pass. Every segment of the leaf has been added to the sums when it returns.
  LeafResult Train(uint64_t step, int leaf, const dataset::Batch& batch);
  // The same over pictures (N, H, W, C; float32) and labels that are given; for planning. Out of memory is c10::OutOfMemoryError. `marks`,
  // of the first micro-batch, may be null. REQUIRES with marks: a recording.
  void TrainOn(const at::Tensor& images, const at::Tensor& labels, int64_t micro_batch, memory::PassMarks* marks);
  void EvaluateOn(const at::Tensor& images, const at::Tensor& labels, bool measures);
  // Loss and metrics only.
  LeafResult Evaluate(int leaf, const dataset::Batch& batch, const OutputSink& sink);

 private:
  struct Samples {
    at::Tensor images, labels;
    std::vector<int64_t> ids;
  };
  Samples GoodSamples(const dataset::Batch& batch, LeafResult& result) const;
  void TrainMicroBatches(const Samples& samples, int64_t micro_batch, ForwardContext& forward, LeafResult& result);
  void HandOverStatistics(int leaf);
  void Measure(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels, LeafResult& result) const;
  void AddStatistics(const std::vector<StatisticUpdate>& updates, int64_t samples);
  void HandOver(int variable, const at::Tensor& gradient);
  void HookGradients();
  template <typename Work>
  void Guard(LeafResult& result, Work&& work);

  const LeafContext context_;
  const std::vector<at::Tensor> aliases_;
  TrainingPass pass_;
  allreduce::LeafSums<T>* const sums_;
  int leaf_ = 0;
  bool last_micro_batch_ = false;
  memory::PassMarks* marks_ = nullptr;
  std::vector<at::Tensor> statistics_;  // by call site: sum over samples, of the leaf at hand
};

extern template class LeafRunner<float>;
extern template class LeafRunner<double>;

}  // namespace lockstep
