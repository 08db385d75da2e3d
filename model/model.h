#pragma once
// A Keras model on libtorch: the graph of a `.keras` file, executed by our layers.
//
// Where it stands: the trainer loads it once, keeps all variables in an arena of its own, and calls Forward for every
// micro-batch. Activations are tensors in Keras's own logical order (images are N,H,W,C, contiguous), so that Flatten, Reshape,
// axes and Dense mean what they mean in Keras. Convolution kernels are kept in "run layout", (O,H,W,I/groups) contiguous, which
// is libtorch's channels-last: nothing is reordered in a step.
//
// Thread-safety: immutable after Load; every method is const and may be called from several threads at once.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/forward_context.h"
#include "model/keras_archive.h"
#include "model/segment.h"

namespace lockstep {

struct VariableInfo {
  std::string path;       // Keras's: "block1_conv/kernel"
  std::string hdf5_path;  // "layers/conv2d/vars/0"
  std::string layer;      // the layer's name, with those of the models around it: "backbone/block1_conv"
  std::string name;       // "kernel", "bias", "gamma", "moving_mean", … (Keras's optimizers exclude from decay by name)
  std::vector<int64_t> keras_shape;
  std::vector<int64_t> run_shape;  // the same number of elements
  bool trainable = false;
  bool statistic = false;  // a moving mean or variance: updated by ForwardContext::statistics in training
  Json regularizer;        // as in the configuration; null if none
};

// One moving statistic that one call of a BatchNormalization updates.
struct StatisticSite {
  int variable = 0;  // index into Model::variables()
  double momentum = 0;
};

// The calls of a model's graph and the values that go between them. Plain data.
struct CallGraph {
  struct Call {
    std::string name;
    std::vector<int> inputs;  // values
    int output = 0;
    std::vector<int> layers;    // whose variables it uses
    bool takes_output = false;  // need not be computed again where its output is stored (Segment::stored), or not used again
  };
  struct Value {
    int made_by = -1;                   // the call; -1: the input
    int first_use = -1, last_use = -1;  // the calls that use it; of the output one beyond the last call
  };
  std::vector<Call> calls;  // in the order of execution
  std::vector<Value> values;
  int input = 0, output = 0;

  bool Uses(const Segment& part, int value) const;
  // Whether calls before `call` and from it on may be in different pieces of a training pass: they share no variable.
  bool MayCut(int call) const;
  // Whether a call is one of a segment, takes its output, and others of the segment use that: else there is nothing to store.
  bool MayStore(const Segment& part, int call) const;
  // Whether they are in order, disjoint, cut where that is allowed, store what they may, and end before the last call; and those within
  // them, within them.
  bool MayRecompute(absl::Span<const Segment> segments) const { return MayRecompute(segments, 0, static_cast<int>(calls.size()) - 1); }

 private:
  bool MayRecompute(absl::Span<const Segment> segments, int first, int end) const;
};

class Model {
 public:
  enum class OutputActivation { kNone, kSoftmax, kSigmoid };
  struct Options {
    at::ScalarType dtype = at::kFloat;  // kFloat or kDouble; overrides the file's policy (float32 or float64)
    bool fuse = true;                   // false: each layer on its own, for comparing
  };

  // InvalidArgument with *every* problem of the file, one a line: layers we do not know (with the list of those we do), options
  // we do not support, variables that are missing or of another shape than the configuration says; each by name and place in
  // the graph.
  static absl::StatusOr<std::unique_ptr<Model>> Load(const KerasArchive& archive, const Options& options);
  ~Model();

  const std::string& name() const;
  at::ScalarType dtype() const;
  // The order of Keras's model.variables, less the states of its random generators; those with `trainable`, in this order, are
  // model.trainable_variables, along which Keras's optimizers keep their slots.
  absl::Span<const VariableInfo> variables() const;
  // The value in the archive from which this model was loaded, in run layout, contiguous, of dtype().
  absl::StatusOr<at::Tensor> InitialValue(const KerasArchive& archive, int variable) const;
  // Between the two layouts, contiguous results, fresh storage unless the layouts are the same. REQUIRES: the shape of the one
  // or the other.
  at::Tensor ToKeras(int variable, const at::Tensor& run) const;
  at::Tensor FromKeras(int variable, const at::Tensor& keras) const;

  // Without the batch axis; −1 where the file says None. An image model's input is (H, W, C).
  const std::vector<int64_t>& input_shape() const;
  const std::vector<int64_t>& output_shape() const;
  // The graph itself rescales its input (Rescaling or Normalization comes first): feed pixels as they are, 0 … 255.
  bool rescales_input() const;
  OutputActivation output_activation() const;
  // What ForwardContext::statistics will hold after a forward pass in training, in that order.
  absl::Span<const StatisticSite> statistic_sites() const;
  // The call sites in the order of execution, as the observer hears of them.
  const CallGraph& call_graph() const;

  // `images`: (N, H, W, C) of dtype(), contiguous. `variables`: one for each of variables(), of its run shape, contiguous, of
  // dtype() (slices of an arena will do); gradients flow to those that require them. Never changes any of them. Runs on the
  // calling thread and no other; throws c10::Error (out of memory, impossible shapes), which the trainer catches.
  at::Tensor Forward(const at::Tensor& images, absl::Span<const at::Tensor> variables, ForwardContext& context) const;
  // A part of it: `values`, one for each of call_graph().values, holds what enters the part, and then what it makes; what nobody uses
  // any more is let go of. Statistics are added to those of the context.
  void RunCalls(const Segment& part, std::vector<at::Tensor>& values, absl::Span<const at::Tensor> variables,
                ForwardContext& context) const;

 private:
  class Program;
  explicit Model(std::unique_ptr<Program> program);
  const std::unique_ptr<const Program> program_;
};

}  // namespace lockstep
