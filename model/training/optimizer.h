#pragma once
// Keras's optimizers: what one step does to the parameters, by exactly their update rules, operation by operation in T's precision
// (keras/src/optimizers of Keras 3.15). No libtorch: everything is loops over plain memory.
//
// Where it stands: the replica keeps parameters and slots in flat arrays of one layout, hands in the reduced gradient, and calls Apply
// once a step. Variables lie at their offsets; what is between them is not touched.
//
// Thread-safety: const methods from many threads; Apply by one at a time. Apply allocates nothing, and is a function of its arguments
// and the configuration: an optimizer object has no state of its own.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/training/optimizer_config.h"

namespace lockstep {

// One trainable variable: `count` elements from `offset` on, in the arrays of parameters, gradients and each slot.
struct OptimizerVariable {
  std::string path;
  int64_t offset = 0;
  int64_t count = 0;
};

// Without padding: it is hashed and saved as it lies in memory.
struct OptimizerScalars {
  int64_t iterations = 0;    // Keras's `iterations`: steps taken, those that only accumulate gradients included
  double u_product = 1;      // Nadam's, rounded to T
  double learning_rate = 0;  // rounded to T; meaningless under a schedule
};

// The memory that an optimizer works on; the owner's.
template <typename T>
struct OptimizerState {
  OptimizerScalars* scalars = nullptr;
  std::vector<T*> slots;  // by slot_names()
};

template <typename T>
class Optimizer {
 public:
  // `variables` in Keras's order, within [0, elements). InvalidArgument if one is not.
  static absl::StatusOr<std::unique_ptr<Optimizer>> Create(const OptimizerConfig& config, std::vector<OptimizerVariable> variables,
                                                           int64_t elements);

  const OptimizerConfig& config() const { return config_; }
  const std::vector<OptimizerVariable>& variables() const { return variables_; }
  // The slots of SlotGroups, one group after another.
  const std::vector<std::string>& slot_names() const { return slot_names_; }
  // What the loss is to be multiplied with before backward; Apply divides gradients by it. 1 if not configured.
  double loss_scale() const { return config_.loss_scale_factor.value_or(1); }

  // The state before the first step.
  void Initialize(const OptimizerState<T>& state) const;

  // One step. `gradients` is used up.
  void Apply(absl::Span<T> parameters, absl::Span<T> gradients, const OptimizerState<T>& state) const;

  // The learning rate of the step that comes next.
  T LearningRate(const OptimizerScalars& scalars) const;

  // Keras's finalize_variable_values: with use_ema, parameters become their averages.
  void FinishTraining(absl::Span<T> parameters, const OptimizerState<T>& state) const;

 private:
  Optimizer(const OptimizerConfig& config, std::vector<OptimizerVariable> variables, int64_t elements);
  T* Slot(const OptimizerState<T>& state, int slot, const OptimizerVariable& variable) const {
    return slot < 0 ? nullptr : state.slots[static_cast<size_t>(slot)] + variable.offset;
  }
  int IndexOf(const char* slot) const;  // -1: none
  int64_t Updates(const OptimizerScalars& scalars) const;
  bool Accumulate(absl::Span<T> gradients, const OptimizerState<T>& state) const;
  void Clip(absl::Span<T> gradients) const;
  void Update(absl::Span<T> parameters, absl::Span<const T> gradients, const OptimizerState<T>& state) const;
  void Average(absl::Span<T> parameters, const OptimizerState<T>& state) const;

  const OptimizerConfig config_;
  const std::vector<OptimizerVariable> variables_;
  const int64_t elements_;
  std::vector<std::string> slot_names_;
  int average_ = -1, accumulator_ = -1;
  int first_ = -1, second_ = -1, third_ = -1;  // the rule's own slots, in SlotGroups' order
};

extern template class Optimizer<float>;
extern template class Optimizer<double>;

// FailedPrecondition under a schedule, as Keras: such a rate cannot be set. InvalidArgument for what is not a finite number ≥ 0.
template <typename T>
absl::Status SetLearningRate(const Optimizer<T>& optimizer, double learning_rate, OptimizerScalars& scalars);

extern template absl::Status SetLearningRate(const Optimizer<float>&, double, OptimizerScalars&);
extern template absl::Status SetLearningRate(const Optimizer<double>&, double, OptimizerScalars&);

}  // namespace lockstep
