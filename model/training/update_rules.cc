#include "model/training/update_rules.h"

#include <algorithm>
#include <cmath>

namespace lockstep {
namespace {

using Kind = OptimizerKind;

// keras.ops.cast of a Python number goes through TensorFlow's default type, float32, even on its way to float64.
template <typename T>
T Cast(double number) {
  return static_cast<T>(static_cast<float>(number));
}

template <typename T>
void Sgd(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  const T rate = step.learning_rate, momentum = Cast<T>(config.momentum);
  T* const w = v.parameter;
  T* const m = v.first;
  const T* const g = v.gradient;
  if (m == nullptr) {
    for (int64_t i = 0; i < v.count; ++i) w[i] -= g[i] * rate;
  } else if (config.nesterov) {
    for (int64_t i = 0; i < v.count; ++i) {
      m[i] = m[i] * momentum - g[i] * rate;
      w[i] += m[i] * momentum - g[i] * rate;
    }
  } else {
    for (int64_t i = 0; i < v.count; ++i) {
      m[i] = m[i] * momentum - g[i] * rate;
      w[i] += m[i];
    }
  }
}

// Slots: velocity, then momentum and average_gradient where configured.
template <typename T, bool kMomentum, bool kCentered>
void Rmsprop(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  const T rate = step.learning_rate, rho = static_cast<T>(config.rho), fresh = static_cast<T>(1 - config.rho);
  const T epsilon = static_cast<T>(config.epsilon), momentum = static_cast<T>(config.momentum);
  T* const w = v.parameter;
  T* const velocity = v.first;
  T* const m = v.second;
  T* const average = kMomentum ? v.third : v.second;
  const T* const g = v.gradient;
  for (int64_t i = 0; i < v.count; ++i) {
    velocity[i] = rho * velocity[i] + fresh * (g[i] * g[i]);
    T denominator;
    if constexpr (kCentered) {
      average[i] = rho * average[i] + fresh * g[i];
      denominator = velocity[i] - average[i] * average[i] + epsilon;
    } else {
      denominator = velocity[i] + epsilon;
    }
    const T increment = rate * g[i] / std::sqrt(denominator);
    if constexpr (kMomentum) {
      m[i] = momentum * m[i] + increment;
      w[i] -= m[i];
    } else {
      w[i] -= increment;
    }
  }
}

template <typename T>
void Rmsprop(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  if (config.momentum > 0) {
    config.centered ? Rmsprop<T, true, true>(config, step, v) : Rmsprop<T, true, false>(config, step, v);
  } else {
    config.centered ? Rmsprop<T, false, true>(config, step, v) : Rmsprop<T, false, false>(config, step, v);
  }
}

template <typename T, bool kAmsgrad>
void Adam(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  const T update = static_cast<T>(step.update);
  const T beta_1_power = std::pow(Cast<T>(config.beta_1), update);
  const T beta_2_power = std::pow(Cast<T>(config.beta_2), update);
  const T alpha = step.learning_rate * std::sqrt(1 - beta_2_power) / (1 - beta_1_power);
  const T fresh_1 = static_cast<T>(1 - config.beta_1), fresh_2 = static_cast<T>(1 - config.beta_2);
  const T epsilon = static_cast<T>(config.epsilon);
  T* const w = v.parameter;
  T* const m = v.first;
  T* const velocity = v.second;
  T* const hat = v.third;
  const T* const g = v.gradient;
  for (int64_t i = 0; i < v.count; ++i) {
    m[i] += (g[i] - m[i]) * fresh_1;
    velocity[i] += (g[i] * g[i] - velocity[i]) * fresh_2;
    T second = velocity[i];
    if constexpr (kAmsgrad) second = hat[i] = std::max(hat[i], second);
    w[i] -= m[i] * alpha / (std::sqrt(second) + epsilon);
  }
}

template <typename T>
void Nadam(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  const T now = static_cast<T>(step.update), next = static_cast<T>(step.update + 1), decay = Cast<T>(0.96);
  const T beta_1 = Cast<T>(config.beta_1), beta_2 = Cast<T>(config.beta_2);
  const T u = beta_1 * (1 - T{0.5} * std::pow(decay, now)), u_next = beta_1 * (1 - T{0.5} * std::pow(decay, next));
  const T left_now = 1 - step.u_product, left_next = 1 - step.u_product * u_next, left_2 = 1 - std::pow(beta_2, now);
  const T fresh_1 = 1 - beta_1, fresh_2 = 1 - beta_2, rest = 1 - u;
  const T rate = step.learning_rate, epsilon = static_cast<T>(config.epsilon);
  T* const w = v.parameter;
  T* const m = v.first;
  T* const velocity = v.second;
  const T* const g = v.gradient;
  for (int64_t i = 0; i < v.count; ++i) {
    m[i] += (g[i] - m[i]) * fresh_1;
    velocity[i] += (g[i] * g[i] - velocity[i]) * fresh_2;
    const T first_hat = u_next * m[i] / left_next + rest * g[i] / left_now;
    w[i] -= first_hat * rate / (std::sqrt(velocity[i] / left_2) + epsilon);
  }
}

template <typename T>
void Adamax(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  const T left = 1 - std::pow(Cast<T>(config.beta_1), static_cast<T>(step.update));
  const T fresh = static_cast<T>(1 - config.beta_1), beta_2 = static_cast<T>(config.beta_2);
  const T rate = step.learning_rate, epsilon = static_cast<T>(config.epsilon);
  T* const w = v.parameter;
  T* const m = v.first;
  T* const norm = v.second;
  const T* const g = v.gradient;
  for (int64_t i = 0; i < v.count; ++i) {
    m[i] += (g[i] - m[i]) * fresh;
    norm[i] = std::max(beta_2 * norm[i], std::abs(g[i]));
    w[i] -= rate * m[i] / (left * (norm[i] + epsilon));
  }
}

template <typename T>
void Adagrad(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  const T rate = step.learning_rate, epsilon = static_cast<T>(config.epsilon);
  T* const w = v.parameter;
  T* const accumulator = v.first;
  const T* const g = v.gradient;
  for (int64_t i = 0; i < v.count; ++i) {
    accumulator[i] += g[i] * g[i];
    w[i] -= rate * g[i] / std::sqrt(accumulator[i] + epsilon);
  }
}

template <typename T>
void Adadelta(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  const T rate = step.learning_rate, epsilon = static_cast<T>(config.epsilon);
  const T rho = static_cast<T>(config.rho), fresh = static_cast<T>(1 - config.rho);
  T* const w = v.parameter;
  T* const gradients = v.first;
  T* const deltas = v.second;
  const T* const g = v.gradient;
  for (int64_t i = 0; i < v.count; ++i) {
    gradients[i] = rho * gradients[i] + fresh * (g[i] * g[i]);
    const T delta = -(std::sqrt(deltas[i] + epsilon) * g[i] / std::sqrt(gradients[i] + epsilon));
    deltas[i] = rho * deltas[i] + fresh * (delta * delta);
    w[i] += rate * delta;
  }
}

template <typename T>
void Lion(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& v) {
  const T rate = step.learning_rate, beta_1 = Cast<T>(config.beta_1), beta_2 = Cast<T>(config.beta_2);
  const T fresh_1 = 1 - beta_1, fresh_2 = 1 - beta_2;
  T* const w = v.parameter;
  T* const m = v.first;
  const T* const g = v.gradient;
  for (int64_t i = 0; i < v.count; ++i) {
    const T direction = m[i] * beta_1 + g[i] * fresh_1;
    w[i] -= rate * static_cast<T>((direction > 0) - (direction < 0));
    m[i] = m[i] * beta_2 + g[i] * fresh_2;
  }
}

}  // namespace

template <typename T>
T NextUProduct(const OptimizerConfig& config, T u_product, int64_t update) {
  const T power = std::pow(static_cast<T>(0.96), static_cast<T>(update));
  return u_product * static_cast<T>(config.beta_1) * (1 - T{0.5} * power);
}

template <typename T>
void UpdateVariable(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& variable) {
  switch (config.kind) {
    case Kind::kSgd: return Sgd(config, step, variable);
    case Kind::kRmsprop: return Rmsprop(config, step, variable);
    case Kind::kAdam:
    case Kind::kAdamW: return config.amsgrad ? Adam<T, true>(config, step, variable) : Adam<T, false>(config, step, variable);
    case Kind::kNadam: return Nadam(config, step, variable);
    case Kind::kAdamax: return Adamax(config, step, variable);
    case Kind::kAdagrad: return Adagrad(config, step, variable);
    case Kind::kAdadelta: return Adadelta(config, step, variable);
    case Kind::kLion: return Lion(config, step, variable);
  }
}

template <typename T>
void DecayWeights(double weight_decay, T learning_rate, T* parameter, int64_t count) {
  const T decay = Cast<T>(weight_decay);
  for (int64_t i = 0; i < count; ++i) parameter[i] -= parameter[i] * decay * learning_rate;
}

template <typename T>
double SumOfSquares(const T* values, int64_t count) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) {
      const double value = values[i + k];
      lanes[k] += value * value;
    }
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

template float NextUProduct(const OptimizerConfig&, float, int64_t);
template double NextUProduct(const OptimizerConfig&, double, int64_t);
template void UpdateVariable(const OptimizerConfig&, const StepConstants<float>&, const VariableView<float>&);
template void UpdateVariable(const OptimizerConfig&, const StepConstants<double>&, const VariableView<double>&);
template void DecayWeights(double, float, float*, int64_t);
template void DecayWeights(double, double, double*, int64_t);
template double SumOfSquares(const float*, int64_t);
template double SumOfSquares(const double*, int64_t);

}  // namespace lockstep
