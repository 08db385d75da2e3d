#pragma once
// Where an optimizer's state lies in a `.keras` file: Keras saves `optimizer.variables`, a flat list in the order in which they were
// created, as the arrays optimizer/vars/0, 1, 2, … . No libtorch.

#include <string>
#include <vector>

#include "model/training/optimizer.h"

namespace lockstep {

inline constexpr char kOptimizerGroup[] = "optimizer/vars";

struct KerasOptimizerVariable {
  enum class Kind { kIterations, kLearningRate, kSlot, kUProduct };
  Kind kind = Kind::kIterations;
  int slot = 0;      // kSlot: index into the optimizer's slot_names()
  int variable = 0;  // kSlot: index into the optimizer's variables(), Keras's trainable variables
};

// Entry i is the array optimizer/vars/i. The learning rate is a variable only where it does not follow a schedule.
std::vector<KerasOptimizerVariable> KerasSlots(const OptimizerConfig& config, const std::vector<std::string>& slot_names,
                                               const std::vector<OptimizerVariable>& variables);

}  // namespace lockstep
