#include "model/training/optimizer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/training/update_rules.h"

namespace lockstep {

template <typename T>
absl::StatusOr<std::unique_ptr<Optimizer<T>>> Optimizer<T>::Create(const OptimizerConfig& config, std::vector<OptimizerVariable> variables,
                                                                   int64_t elements) {
  for (const OptimizerVariable& variable : variables) {
    if (variable.offset < 0 || variable.count < 0 || variable.offset > elements - variable.count) {
      return absl::InvalidArgumentError(absl::StrCat("variable ", variable.path, " lies at [", variable.offset, ", ",
                                                     variable.offset + variable.count, "), outside of ", elements, " elements"));
    }
  }
  return std::unique_ptr<Optimizer>(new Optimizer(config, std::move(variables), elements));
}

template <typename T>
Optimizer<T>::Optimizer(const OptimizerConfig& config, std::vector<OptimizerVariable> variables, int64_t elements)
    : config_(config), variables_(std::move(variables)), elements_(elements) {
  for (const std::vector<std::string>& group : SlotGroups(config_)) {
    slot_names_.insert(slot_names_.end(), group.begin(), group.end());
  }
  average_ = IndexOf("average");
  accumulator_ = IndexOf("gradient_accumulator");
  const int own = (average_ >= 0) + (accumulator_ >= 0), all = static_cast<int>(slot_names_.size());
  if (own < all) first_ = own;
  if (own + 1 < all) second_ = own + 1;
  if (own + 2 < all) third_ = own + 2;
}

template <typename T>
int Optimizer<T>::IndexOf(const char* slot) const {
  const auto found = std::find(slot_names_.begin(), slot_names_.end(), slot);
  return found == slot_names_.end() ? -1 : static_cast<int>(found - slot_names_.begin());
}

template <typename T>
void Optimizer<T>::Initialize(const OptimizerState<T>& state) const {
  *state.scalars = OptimizerScalars();
  state.scalars->learning_rate = static_cast<T>(config_.learning_rate.initial);
  for (T* slot : state.slots) std::fill(slot, slot + elements_, T{0});
  if (config_.kind != OptimizerKind::kAdagrad) return;
  // Keras's constant initializer casts the number, which goes through float32.
  const T start = static_cast<T>(static_cast<float>(config_.initial_accumulator_value));
  for (const OptimizerVariable& variable : variables_) std::fill_n(Slot(state, first_, variable), variable.count, start);
}

template <typename T>
int64_t Optimizer<T>::Updates(const OptimizerScalars& scalars) const {
  return config_.gradient_accumulation_steps > 1 ? scalars.iterations / config_.gradient_accumulation_steps : scalars.iterations;
}

template <typename T>
T Optimizer<T>::LearningRate(const OptimizerScalars& scalars) const {
  if (config_.learning_rate.settable()) return static_cast<T>(scalars.learning_rate);
  return config_.learning_rate.At(scalars.iterations);
}

// True if this step updates: the gradient is then the mean of those that were accumulated.
template <typename T>
bool Optimizer<T>::Accumulate(absl::Span<T> gradients, const OptimizerState<T>& state) const {
  const int64_t steps = config_.gradient_accumulation_steps;
  if (steps <= 1) return true;
  const bool updates = (state.scalars->iterations + 1) % steps == 0;
  for (const OptimizerVariable& variable : variables_) {
    T* const sum = Slot(state, accumulator_, variable);
    T* const g = gradients.data() + variable.offset;
    if (updates) {
      for (int64_t i = 0; i < variable.count; ++i) g[i] = (g[i] + sum[i]) / static_cast<T>(steps);
      std::fill_n(sum, variable.count, T{0});
    } else {
      for (int64_t i = 0; i < variable.count; ++i) sum[i] += g[i];
    }
  }
  return updates;
}

// A bound of zero or less does not clip, as in Keras.
template <typename T>
void Optimizer<T>::Clip(absl::Span<T> gradients) const {
  const T norm_bound = static_cast<T>(config_.clipnorm.value_or(0)), value_bound = static_cast<T>(config_.clipvalue.value_or(0));
  const T global_bound = static_cast<T>(config_.global_clipnorm.value_or(0));
  double squares = 0;
  if (norm_bound <= 0 && global_bound > 0) {
    for (const OptimizerVariable& variable : variables_) squares += SumOfSquares(gradients.data() + variable.offset, variable.count);
  }
  const T global_norm = static_cast<T>(std::sqrt(squares));
  // A norm that is not finite makes every gradient not a number, as in Keras.
  const T scale = global_bound * std::min(1 / global_norm, 1 / global_bound) + (global_norm - global_norm);
  for (const OptimizerVariable& variable : variables_) {
    T* const g = gradients.data() + variable.offset;
    if (norm_bound > 0) {
      const T divisor = std::max(static_cast<T>(std::sqrt(SumOfSquares(g, variable.count))), norm_bound);
      for (int64_t i = 0; i < variable.count; ++i) g[i] = g[i] * norm_bound / divisor;
    } else if (global_bound > 0) {
      for (int64_t i = 0; i < variable.count; ++i) g[i] *= scale;
    } else if (value_bound > 0) {
      for (int64_t i = 0; i < variable.count; ++i) g[i] = std::min(std::max(g[i], -value_bound), value_bound);
    }
  }
}

template <typename T>
void Optimizer<T>::Update(absl::Span<T> parameters, absl::Span<const T> gradients, const OptimizerState<T>& state) const {
  StepConstants<T> step;
  step.learning_rate = LearningRate(*state.scalars);
  step.update = Updates(*state.scalars) + 1;
  if (config_.kind == OptimizerKind::kNadam) {
    step.u_product = NextUProduct(config_, static_cast<T>(state.scalars->u_product), step.update);
    state.scalars->u_product = step.u_product;
  }
  for (const OptimizerVariable& variable : variables_) {
    T* const parameter = parameters.data() + variable.offset;
    if (config_.weight_decay) {
      DecayWeights(*config_.weight_decay, step.learning_rate, parameter, variable.count);
    }
    UpdateVariable(config_, step,
                   VariableView<T>{variable.count, parameter, gradients.data() + variable.offset, Slot(state, first_, variable),
                                   Slot(state, second_, variable), Slot(state, third_, variable)});
  }
}

template <typename T>
void Optimizer<T>::Average(absl::Span<T> parameters, const OptimizerState<T>& state) const {
  const int64_t updates = Updates(*state.scalars);
  const T momentum = updates != 0 ? static_cast<T>(config_.ema_momentum) : T{0}, fresh = 1 - momentum;
  const bool overwrite = config_.ema_overwrite_frequency > 0 && (updates + 1) % config_.ema_overwrite_frequency == 0;
  for (const OptimizerVariable& variable : variables_) {
    T* const w = parameters.data() + variable.offset;
    T* const average = Slot(state, average_, variable);
    for (int64_t i = 0; i < variable.count; ++i) average[i] = momentum * average[i] + fresh * w[i];
    if (overwrite) std::copy_n(average, variable.count, w);
  }
}

template <typename T>
void Optimizer<T>::Apply(absl::Span<T> parameters, absl::Span<T> gradients, const OptimizerState<T>& state) const {
  if (config_.loss_scale_factor) {
    const T scale = static_cast<T>(*config_.loss_scale_factor);
    for (T& gradient : gradients) gradient /= scale;
  }
  if (Accumulate(gradients, state)) {
    Clip(gradients);
    Update(parameters, gradients, state);
  }
  if (config_.use_ema) Average(parameters, state);
  ++state.scalars->iterations;
}

template <typename T>
void Optimizer<T>::FinishTraining(absl::Span<T> parameters, const OptimizerState<T>& state) const {
  if (!config_.use_ema || state.scalars->iterations == 0) return;
  for (const OptimizerVariable& variable : variables_) {
    std::copy_n(Slot(state, average_, variable), variable.count, parameters.data() + variable.offset);
  }
}

template class Optimizer<float>;
template class Optimizer<double>;

template <typename T>
absl::Status SetLearningRate(const Optimizer<T>& optimizer, double learning_rate, OptimizerScalars& scalars) {
  if (!optimizer.config().learning_rate.settable()) {
    return absl::FailedPreconditionError("the optimizer's learning rate follows a schedule and cannot be set");
  }
  if (!std::isfinite(learning_rate) || learning_rate < 0) {
    return absl::InvalidArgumentError(absl::StrCat("a learning rate of ", learning_rate, " is not a finite number of at least 0"));
  }
  scalars.learning_rate = static_cast<T>(learning_rate);
  return absl::OkStatus();
}

template absl::Status SetLearningRate(const Optimizer<float>&, double, OptimizerScalars&);
template absl::Status SetLearningRate(const Optimizer<double>&, double, OptimizerScalars&);

}  // namespace lockstep
