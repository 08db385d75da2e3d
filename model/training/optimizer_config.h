#pragma once
// Which optimizer trains, with all of its options, as plain data; and how it is read from Keras's serialized form. No libtorch.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/training/config_fields.h"
#include "model/training/learning_rate.h"

namespace lockstep {

enum class OptimizerKind { kSgd, kRmsprop, kAdam, kAdamW, kNadam, kAdamax, kAdagrad, kAdadelta, kLion };

// Names and defaults are Keras's. An option that a kind does not have is not read for it.
struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::kSgd;
  LearningRate learning_rate;
  double momentum = 0;    // SGD, RMSprop
  bool nesterov = false;  // SGD
  double rho = 0.9;       // RMSprop, Adadelta
  bool centered = false;  // RMSprop
  double beta_1 = 0.9, beta_2 = 0.999;
  double epsilon = 1e-7;
  bool amsgrad = false;                    // Adam, AdamW
  double initial_accumulator_value = 0.1;  // Adagrad
  std::optional<double> weight_decay;
  // At most one of the three.
  std::optional<double> clipnorm, clipvalue, global_clipnorm;
  bool use_ema = false;
  double ema_momentum = 0.99;
  int64_t ema_overwrite_frequency = 0;  // 0: only when training ends
  std::optional<double> loss_scale_factor;
  int64_t gradient_accumulation_steps = 0;  // 0: every step updates
};

// The slots that Keras's optimizer keeps for each variable, in the order in which it creates them. Those of one group are created
// variable by variable ("momentum" and "velocity" of the first variable, then of the second), groups one after another.
std::vector<std::vector<std::string>> SlotGroups(const OptimizerConfig& config);

// "adam", "Adam" or a serialized object. On problems the result is meaningless.
OptimizerConfig ReadOptimizer(const Json& value, const std::string& where, Problems& problems);

}  // namespace lockstep
