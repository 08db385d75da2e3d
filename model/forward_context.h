#pragma once
// What one forward pass is told, and what it leaves behind beside its output. Belongs to one thread for the length of one call.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

namespace lockstep {

// A moving statistic of BatchNormalization: moving = moving · momentum + batch_value · (1 − momentum), as Keras does it, in
// the order of the vector (a shared layer appears once for every call).
struct StatisticUpdate {
  int variable = 0;        // index into Model::variables()
  at::Tensor batch_value;  // detached, the variable's run shape; variance is biased (divided by n, not n − 1)
  double momentum = 0;
};

struct ForwardContext {
  bool training = false;
  // Random layers draw from (seed, step, virtual replica, call site in the graph, element): no generator has any state.
  uint64_t seed = 0;
  uint64_t step = 0;
  int virtual_replica = 0;
  // Where this micro-batch's first sample stands in the virtual replica's slice of the batch: random layers draw for (first_sample + i),
  // so that dropout does not depend on how a slice is cut into micro-batches.
  int64_t first_sample = 0;
  // The calls are computed again, in backward (TrainingPass).
  bool again = false;
  // By call: what it makes, taken in place of computing it. The shape of it is enough where nothing that is computed again uses it. Null:
  // none.
  std::map<int, at::Tensor>* known = nullptr;
  // By call: filled in with what it makes. Null: none.
  std::map<int, at::Tensor>* stores = nullptr;
  // What a call needs for backward is let go of as soon as it has run.
  bool forgets = false;
  // Called at entry (null) and exit (what it made) of every call of a layer, with its index into CallGraph::calls; a layer that is fused
  // into another is inside that one's. For accounting memory and time by layer.
  std::function<void(const ForwardContext& context, int call, const at::Tensor* output)> observer;

  // Left behind by the call:
  std::vector<StatisticUpdate> statistics;  // empty unless training
  // Where the model ends in softmax or sigmoid (Model::output_activation()): what went into it, part of the same autograd
  // graph. Keras computes cross-entropy from it, not from the rounded probabilities. Else undefined.
  at::Tensor logits;
};

}  // namespace lockstep
