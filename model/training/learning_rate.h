#pragma once
// An optimizer's learning rate: a number, or one of Keras's schedules (keras.optimizers.schedules), a function of the number of
// steps that were taken. No libtorch. Immutable values, thread-safe.

#include <cstdint>
#include <string>
#include <vector>

#include "model/training/config_fields.h"

namespace lockstep {

struct LearningRate {
  enum class Kind {
    kConstant,
    kExponentialDecay,
    kPiecewiseConstantDecay,
    kPolynomialDecay,
    kInverseTimeDecay,
    kCosineDecay,
    kCosineDecayRestarts,
  };
  Kind kind = Kind::kConstant;
  double initial = 0;                      // the number itself for kConstant
  double decay_steps = 1;                  // first_decay_steps of CosineDecayRestarts
  double decay_rate = 1;                   // ExponentialDecay, InverseTimeDecay
  bool staircase = false;                  // likewise
  double end = 0, power = 1;               // PolynomialDecay
  bool cycle = false;                      // likewise
  double alpha = 0;                        // CosineDecay, CosineDecayRestarts
  std::optional<double> warmup_target;     // CosineDecay
  double warmup_steps = 0;                 // likewise
  double t_mul = 2, m_mul = 1;             // CosineDecayRestarts
  std::vector<double> boundaries, values;  // PiecewiseConstantDecay

  static LearningRate Constant(double value);

  // Keras only lets a plain number be set during training.
  bool settable() const { return kind == Kind::kConstant; }

  // Of the step that begins after `steps` steps, operation by operation as Keras does it: on TensorFlow its schedules compute in float32
  // whatever the model's type.
  float At(int64_t steps) const;
};

// A number, or a schedule's serialized object.
LearningRate ReadLearningRate(const Json& value, const std::string& where, Problems& problems);

}  // namespace lockstep
