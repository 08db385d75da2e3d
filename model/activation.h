#pragma once
// Keras's activation functions (keras.activations) on tensors. Immutable values.

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "model/layer.h"
#include "model/layer_options.h"

namespace lockstep {

struct Activation {
  enum class Kind {
    kLinear,
    kRelu,
    kLeakyRelu,
    kElu,
    kSelu,
    kCelu,
    kGelu,
    kSilu,
    kHardSilu,
    kSigmoid,
    kHardSigmoid,
    kLogSigmoid,
    kSparseSigmoid,
    kTanh,
    kHardTanh,
    kTanhShrink,
    kSoftShrink,
    kHardShrink,
    kSoftplus,
    kSoftsign,
    kSparsePlus,
    kSquareplus,
    kExponential,
    kMish,
    kSoftmax,
    kLogSoftmax,
  };
  Kind kind = Kind::kLinear;
  // kRelu: slope below the threshold, the largest value (infinite if none), the threshold. kLeakyRelu: slope. kElu, kCelu: alpha.
  double slope = 0, max_value = 0, threshold = 0;
  std::vector<int64_t> axes = {-1};  // kSoftmax: one or several; kLogSoftmax: one
  bool approximate = false;          // kGelu: by tanh

  // relu(x) with the options of keras.layers.ReLU.
  static Activation Relu(double slope, std::optional<double> max_value, double threshold);
  // relu with no slope and no threshold: a clamp to [0, max_value].
  bool IsClamp() const { return kind == Kind::kRelu && slope == 0 && threshold == 0; }

  at::Tensor operator()(const at::Tensor& x) const;
};

// activation(x); where that is the model's output, and x are logits (of a softmax or sigmoid), they are left in the context for the
// loss.
at::Tensor Activate(const Activation& activation, const at::Tensor& x, const Frame& frame);

// The option `key` as Keras serialises it: null, a name, or an object for one of its functions or parameterless activation layers.
Activation ReadActivation(LayerOptions& options, const char* key);
// The class_name of an activation layer (ReLU, LeakyReLU, ELU, Softmax …) with its options; nothing if it is not one.
std::optional<Activation> ActivationOfLayer(const std::string& class_name, LayerOptions& options);
std::optional<Activation> ActivationByName(const std::string& name);
std::vector<std::string> ActivationNames();  // sorted

}  // namespace lockstep
