#pragma once
// A training pass over a model in which some segments of the graph are computed twice: what they keep for backward is let go of after
// forward, and made again when backward comes to them, from the values that enter them; in pieces of their own, if they have segments
// within them.
//
// Where it stands: LeafRunner runs one for each micro-batch; planning chooses the segments (memory/segments.h). The bits are those of a
// pass without segments: the graph is cut into pieces, each is an autograd graph of its own, and backward goes through them from the last
// to the first. What makes that exact is that random layers draw by call site and not from a generator; that gradients of a value which
// several pieces use are added in the order in which one graph would add them; and that no variable is used by two pieces.
//
// Belongs to one thread.

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/types/span.h"
#include "model/forward_context.h"
#include "model/model.h"
#include "model/segment.h"

namespace lockstep {

class TrainingPass {
 public:
  // `segments`: in order, disjoint, each cut allowed by the model (CallGraph::MayCut), the last one ends before the last call. Anything
  // else aborts: planning checks what it chooses. `model` must outlive this object.
  TrainingPass(const Model& model, absl::Span<const Segment> segments);
  ~TrainingPass();

  // As Model::Forward, in training.
  at::Tensor Forward(const at::Tensor& images, absl::Span<const at::Tensor> variables, ForwardContext& context);
  // Of a loss of what Forward returned, which the caller holds no longer. `context` and `variables` as there; the statistics are not
  // touched. REQUIRES: once for each Forward.
  void Backward(at::Tensor loss, absl::Span<const at::Tensor> variables, const ForwardContext& context);
  // Lets go of a pass that failed.
  void Clear();

 private:
  struct Piece;
  class Catch;

  const Model& model_;
  std::vector<Piece> pieces_;  // none: nothing is computed twice
};

}  // namespace lockstep
