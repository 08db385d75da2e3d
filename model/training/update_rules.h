#pragma once
// The arithmetic of an optimizer's step over one variable: loops that a compiler turns into vectors, in the order of Keras's operations.
// Every constant is rounded to T where Keras rounds it. No state, no allocation.

#include <cstdint>

#include "model/training/optimizer_config.h"

namespace lockstep {

// One variable's memory during an update; slots by SlotGroups' order without "average" and "gradient_accumulator", null where the
// configuration has none.
template <typename T>
struct VariableView {
  int64_t count = 0;
  T* parameter = nullptr;
  const T* gradient = nullptr;
  T* first = nullptr;
  T* second = nullptr;
  T* third = nullptr;
};

// What is the same for all variables of a step.
template <typename T>
struct StepConstants {
  T learning_rate = 0;
  int64_t update = 1;  // counts from 1: the update that this is
  T u_product = 1;     // Nadam: after this step's factor
};

// u_product after its factor for update number `update`.
template <typename T>
T NextUProduct(const OptimizerConfig& config, T u_product, int64_t update);

template <typename T>
void UpdateVariable(const OptimizerConfig& config, const StepConstants<T>& step, const VariableView<T>& variable);

// parameter -= parameter · weight_decay · learning_rate.
template <typename T>
void DecayWeights(double weight_decay, T learning_rate, T* parameter, int64_t count);

// In float64, in eight fixed lanes: the same bits whatever the vectors' width.
template <typename T>
double SumOfSquares(const T* values, int64_t count);

extern template float NextUProduct(const OptimizerConfig&, float, int64_t);
extern template double NextUProduct(const OptimizerConfig&, double, int64_t);
extern template void UpdateVariable(const OptimizerConfig&, const StepConstants<float>&, const VariableView<float>&);
extern template void UpdateVariable(const OptimizerConfig&, const StepConstants<double>&, const VariableView<double>&);
extern template void DecayWeights(double, float, float*, int64_t);
extern template void DecayWeights(double, double, double*, int64_t);
extern template double SumOfSquares(const float*, int64_t);
extern template double SumOfSquares(const double*, int64_t);

}  // namespace lockstep
