#pragma once
// What every layer is: variables that it declares, a rule for shapes, and a forward pass.
//
// Where it stands: layers are made by layers/registry from a file's configuration, put in order by graph, called by model.
// A shape includes the batch axis, as Keras's axes do; −1 is a size that is only known at run time.
//
// Thread-safety: immutable after Build; Forward is const and is called from several threads at once.

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/batch_norm.h"
#include "model/forward_context.h"
#include "model/keras_archive.h"

namespace lockstep {

struct Activation;
struct Follower;

using Shape = std::vector<int64_t>;

std::string ShapeText(const Shape& shape);  // "(None, 96, 96, 3)"

// Converts between Keras's layout of a kernel and ours.
enum class KernelLayout {
  kAsIs,
  kConvolution,  // (h, w, in, out) → (out, h, w, in); for a transposed convolution (h, w, out, in) → (in, h, w, out)
  kDepthwise,    // (h, w, c, m) → (c·m, h, w, 1)
};
Shape RunShape(KernelLayout layout, const Shape& keras_shape);

struct VariableSpec {
  std::string name;
  Shape shape;  // Keras's
  Json regularizer = nullptr;
  KernelLayout layout = KernelLayout::kAsIs;
  bool trainable = true;
  bool statistic = false;
};

// One call of one layer in one forward pass.
struct Frame {
  absl::Span<const at::Tensor> variables;  // this layer's own, in the order of Build
  int first_variable = 0;                  // where they stand in Model::variables()
  uint64_t call_site = 0;
  bool trainable = true;               // the layer and every model around it
  bool is_output = false;              // what the call returns is the model's output
  const Follower* follower = nullptr;  // computes on what this layer makes, in the same pass (Layer::FuseFollower)
  const at::Tensor& output;            // what the call makes, where that is known (Layer::takes_output); else undefined
  ForwardContext& context;

  const at::Tensor& variable(int i) const { return variables[i]; }
};

class Layer {
 public:
  virtual ~Layer() = default;

  // Declares the layer's variables, trainable ones first, from the shapes of its first call. Called once, before all else.
  virtual absl::StatusOr<std::vector<VariableSpec>> Build(absl::Span<const Shape> inputs);
  // InvalidArgument if the layer cannot take these inputs. Default: one input, the same shape.
  virtual absl::StatusOr<Shape> OutputShape(absl::Span<const Shape> inputs) const;
  // The inputs are the call's own references: a layer may move them out, but not change what they refer to.
  virtual at::Tensor Forward(absl::Span<at::Tensor> inputs, const Frame& frame) const = 0;

  // The activation that Forward ends in; null if none. Of the last layer it says what a loss is given.
  virtual const Activation* activation() const { return nullptr; }
  // Indices (among the layer's variables) and momenta of the moving statistics that one training call updates, in order.
  virtual std::vector<std::pair<int, double>> StatisticUpdates(bool /*trainable*/) const { return {}; }
  // Takes the activation that follows, and nothing else uses this layer's output, into its own pass. False: it cannot.
  virtual bool Fuse(const Activation& /*next*/) { return false; }
  // Takes over zeros that the layer before adds around its image. False: it cannot.
  virtual bool FusePadding(const std::array<int64_t, 4>& /*border*/) { return false; }
  // Takes the layer that follows, and nothing else uses this layer's output, into its own pass: from then on calls have it as their
  // Frame::follower. False: it cannot.
  virtual bool FuseFollower(const Layer& /*next*/) const { return false; }
  // Whether Forward needs no more than the shape of its output, where the frame has it, to be ready for backward.
  virtual bool takes_output() const { return false; }
  // Whether ForwardNormalised works.
  virtual bool takes_normalised() const { return false; }
  // What Forward makes of clamp(batch_norm(x)), which is never stored. REQUIRES: takes_normalised().
  virtual BatchNormResult ForwardNormalised(const at::Tensor& x, const NormalisationBefore& norm, const Frame& frame) const;
  // Whether the layer sets the range of pixels (Rescaling, Normalization).
  virtual bool rescales() const { return false; }
  // Zeros that it adds around an image: top, bottom, left, right.
  virtual std::optional<std::array<int64_t, 4>> zero_padding() const { return std::nullopt; }
};

struct Follower {
  const Layer& layer;
  const Frame& frame;
};

// InvalidArgument unless there are `count` inputs, each of `rank` axes (0: any).
absl::Status ExpectInputs(absl::Span<const Shape> inputs, size_t count, int rank);
// `axis` counted from the front. InvalidArgument if there is no such axis.
absl::StatusOr<int> FrontAxis(int64_t axis, size_t rank);
// The shape of a + b, as NumPy broadcasts; −1 stays unknown unless the other says more than 1.
absl::StatusOr<Shape> BroadcastShapes(const Shape& a, const Shape& b);

}  // namespace lockstep
