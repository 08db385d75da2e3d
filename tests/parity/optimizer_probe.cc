// Runs optimizers over recorded gradients, for tests/parity/optimizer_test.py. JSON in, JSON out:
//
//   {"variables": [[…] …], "gradients": [[[…] …] …], "cases": [{"optimizer": Keras's, "float64": false} …]}
//   {"cases": [{"rates": [per step], "parameters": [per step][per variable][…], "saved": [per optimizer variable][…], "finished": […]} …]}

#include <iostream>

#include "absl/strings/str_join.h"
#include "model/training/keras_slots.h"
#include "model/training/optimizer.h"

namespace lockstep {
namespace {

constexpr int64_t kGap = 16;  // between variables, as in a gradient's layout; filled with what must never be touched

template <typename T>
struct Arena {
  std::vector<OptimizerVariable> variables;
  std::vector<T> values;

  explicit Arena(const Json& lists) {
    for (const Json& list : lists) {
      variables.push_back({std::to_string(variables.size()), static_cast<int64_t>(values.size()), static_cast<int64_t>(list.size())});
      for (const Json& value : list) values.push_back(value.get<T>());
      values.insert(values.end(), kGap, T{12345});
    }
  }

  Json Lists(const T* from) const {
    Json lists = Json::array();
    for (const OptimizerVariable& variable : variables) {
      lists.push_back(std::vector<T>(from + variable.offset, from + variable.offset + variable.count));
    }
    return lists;
  }
};

template <typename T>
Json Saved(const Optimizer<T>& optimizer, const OptimizerState<T>& state, const Arena<T>& arena) {
  Json saved = Json::array();
  using Kind = KerasOptimizerVariable::Kind;
  for (const KerasOptimizerVariable& entry : KerasSlots(optimizer.config(), optimizer.slot_names(), optimizer.variables())) {
    switch (entry.kind) {
      case Kind::kIterations: saved.push_back({state.scalars->iterations}); break;
      case Kind::kLearningRate: saved.push_back({optimizer.LearningRate(*state.scalars)}); break;
      case Kind::kUProduct: saved.push_back({state.scalars->u_product}); break;
      case Kind::kSlot:
        saved.push_back(arena.Lists(state.slots[static_cast<size_t>(entry.slot)])[static_cast<size_t>(entry.variable)]);
        break;
    }
  }
  return saved;
}

template <typename T>
Json Run(const Json& request, const OptimizerConfig& config) {
  Arena<T> arena(request["variables"]);
  const auto optimizer = *Optimizer<T>::Create(config, arena.variables, static_cast<int64_t>(arena.values.size()));
  OptimizerScalars scalars;
  OptimizerState<T> state{&scalars, {}};
  std::vector<std::vector<T>> slots(optimizer->slot_names().size(), std::vector<T>(arena.values.size()));
  for (std::vector<T>& slot : slots) state.slots.push_back(slot.data());
  optimizer->Initialize(state);
  Json result = {{"rates", Json::array()}, {"parameters", Json::array()}};
  for (const Json& step : request["gradients"]) {
    Arena<T> gradients(step);
    result["rates"].push_back(optimizer->LearningRate(scalars));
    optimizer->Apply(absl::MakeSpan(arena.values), absl::MakeSpan(gradients.values), state);
    result["parameters"].push_back(arena.Lists(arena.values.data()));
  }
  result["saved"] = Saved(*optimizer, state, arena);
  optimizer->FinishTraining(absl::MakeSpan(arena.values), state);
  result["finished"] = arena.Lists(arena.values.data());
  return result;
}

int Main() {
  const Json request = Json::parse(std::cin);
  Json cases = Json::array();
  for (const Json& one : request["cases"]) {
    Problems problems;
    const OptimizerConfig config = ReadOptimizer(one["optimizer"], "optimizer", problems);
    if (!problems.empty()) {
      std::cerr << absl::StrJoin(problems, "\n") << "\n";
      return 1;
    }
    cases.push_back(one["float64"].get<bool>() ? Run<double>(request, config) : Run<float>(request, config));
  }
  std::cout << Json{{"cases", cases}};
  return 0;
}

}  // namespace
}  // namespace lockstep

int main() { return lockstep::Main(); }
