// Trains an archive's weights on recorded gradients and writes the trained archive, for tests/parity/archive_test.py. JSON in:
//
//   {"source": "a.keras", "target": "b.keras", "trainable": ["layers/dense/vars/0" …], "gradients": [[[…] …] …], "optimizer": "" …}
//
// What the trainer's replica does, less the model.

#include <iostream>

#include "base/status_macros.h"
#include "model/training/archive_writer.h"
#include "model/training/compile_config.h"
#include "model/training/keras_slots.h"

namespace lockstep {
namespace {

using Kind = KerasOptimizerVariable::Kind;

struct Training {
  std::vector<OptimizerVariable> variables;
  std::vector<std::vector<int64_t>> shapes;
  std::vector<float> parameters;
  std::vector<std::vector<float>> slots;
  OptimizerScalars scalars;
  OptimizerState<float> state;
  std::unique_ptr<Optimizer<float>> optimizer;
};

absl::Status LoadParameters(const KerasArchive& archive, const Json& paths, Training& training) {
  for (const Json& json_path : paths) {
    const std::string path = json_path.get<std::string>();
    training.shapes.push_back(archive.arrays().at(path).shape);
    ASSIGN_OR_RETURN(const std::vector<float> values, archive.Read<float>(path, training.shapes.back()));
    training.variables.push_back({path, static_cast<int64_t>(training.parameters.size()), static_cast<int64_t>(values.size())});
    training.parameters.insert(training.parameters.end(), values.begin(), values.end());
  }
  return absl::OkStatus();
}

absl::Status LoadOptimizer(const KerasArchive& archive, Training& training) {
  const auto saved = KerasSlots(training.optimizer->config(), training.optimizer->slot_names(), training.variables);
  if (!archive.Has(absl::StrCat(kOptimizerGroup, "/", saved.size() - 1))) return absl::OkStatus();
  for (size_t i = 0; i < saved.size(); ++i) {
    const std::string path = absl::StrCat(kOptimizerGroup, "/", i);
    const std::vector<int64_t>& shape = archive.arrays().at(path).shape;
    ASSIGN_OR_RETURN(const std::vector<float> values, archive.Read<float>(path, shape));
    switch (saved[i].kind) {
      case Kind::kIterations: training.scalars.iterations = static_cast<int64_t>(values[0]); break;
      case Kind::kLearningRate: training.scalars.learning_rate = values[0]; break;
      case Kind::kUProduct: training.scalars.u_product = values[0]; break;
      case Kind::kSlot: {
        const OptimizerVariable& variable = training.variables[static_cast<size_t>(saved[i].variable)];
        std::copy(values.begin(), values.end(), training.state.slots[static_cast<size_t>(saved[i].slot)] + variable.offset);
        break;
      }
    }
  }
  return absl::OkStatus();
}

void Step(const Json& lists, Training& training) {
  std::vector<float> gradients;
  for (const Json& list : lists) {
    for (const Json& value : list) gradients.push_back(value.get<float>());
  }
  training.optimizer->Apply(absl::MakeSpan(training.parameters), absl::MakeSpan(gradients), training.state);
}

absl::Status Write(const Json& request, const Recipe& recipe, const Training& training) {
  const auto array = [&](const std::vector<float>& flat, int variable) -> ArchiveArray {
    const OptimizerVariable& where = training.variables[static_cast<size_t>(variable)];
    return {training.shapes[static_cast<size_t>(variable)],
            absl::MakeConstSpan(flat).subspan(static_cast<size_t>(where.offset), static_cast<size_t>(where.count))};
  };
  TrainedWeights weights;
  weights.compile_config = recipe.compile_config;
  for (size_t i = 0; i < training.variables.size(); ++i) {
    weights.arrays[training.variables[i].path] = array(training.parameters, static_cast<int>(i));
  }
  const float rate = training.optimizer->LearningRate(training.scalars), u_product = static_cast<float>(training.scalars.u_product);
  for (const auto& entry : KerasSlots(training.optimizer->config(), training.optimizer->slot_names(), training.variables)) {
    switch (entry.kind) {
      case Kind::kIterations: weights.optimizer.push_back({{}, absl::MakeConstSpan(&training.scalars.iterations, 1)}); break;
      case Kind::kLearningRate: weights.optimizer.push_back({{}, absl::MakeConstSpan(&rate, 1)}); break;
      case Kind::kUProduct: weights.optimizer.push_back({{}, absl::MakeConstSpan(&u_product, 1)}); break;
      case Kind::kSlot: weights.optimizer.push_back(array(training.slots[static_cast<size_t>(entry.slot)], entry.variable)); break;
    }
  }
  return WriteTrainedArchive(request["source"], request["target"], weights);
}

absl::Status Run(const Json& request) {
  ASSIGN_OR_RETURN(const auto archive, KerasArchive::Open(request["source"]));
  RecipeOverrides overrides;
  overrides.optimizer = request.value("optimizer", "");
  overrides.loss = request.value("loss", "");
  if (request.contains("metrics")) overrides.metrics = request["metrics"].get<std::vector<std::string>>();
  if (request.contains("learning_rate")) overrides.learning_rate = request["learning_rate"].get<double>();
  ASSIGN_OR_RETURN(const Recipe recipe, ReadRecipe(archive->compile_config(), overrides, {3, 2, 3}));
  Training training;
  RETURN_IF_ERROR(LoadParameters(*archive, request["trainable"], training));
  const auto elements = static_cast<int64_t>(training.parameters.size());
  ASSIGN_OR_RETURN(training.optimizer, Optimizer<float>::Create(recipe.optimizer, training.variables, elements));
  training.slots.assign(training.optimizer->slot_names().size(), std::vector<float>(training.parameters.size()));
  training.state.scalars = &training.scalars;
  for (std::vector<float>& slot : training.slots) training.state.slots.push_back(slot.data());
  training.optimizer->Initialize(training.state);
  if (recipe.continues_optimizer) RETURN_IF_ERROR(LoadOptimizer(*archive, training));
  for (const Json& step : request["gradients"]) Step(step, training);
  return Write(request, recipe, training);
}

}  // namespace
}  // namespace lockstep

int main() {
  const lockstep::Json request = lockstep::Json::parse(std::cin);
  const absl::Status status = lockstep::Run(request);
  std::cout << lockstep::Json{{"error", status.ok() ? "" : status.ToString()}};
  return 0;
}
