#include "model/training/keras_slots.h"

#include <algorithm>

namespace lockstep {

std::vector<KerasOptimizerVariable> KerasSlots(const OptimizerConfig& config, const std::vector<std::string>& slot_names,
                                               const std::vector<OptimizerVariable>& variables) {
  using Kind = KerasOptimizerVariable::Kind;
  std::vector<KerasOptimizerVariable> saved = {{Kind::kIterations, 0, 0}};
  if (config.learning_rate.settable()) saved.push_back({Kind::kLearningRate, 0, 0});
  for (const std::vector<std::string>& group : SlotGroups(config)) {
    for (size_t variable = 0; variable < variables.size(); ++variable) {
      for (const std::string& name : group) {
        const auto slot = std::find(slot_names.begin(), slot_names.end(), name);
        saved.push_back({Kind::kSlot, static_cast<int>(slot - slot_names.begin()), static_cast<int>(variable)});
      }
    }
  }
  if (config.kind == OptimizerKind::kNadam) saved.push_back({Kind::kUProduct, 0, 0});
  return saved;
}

}  // namespace lockstep
