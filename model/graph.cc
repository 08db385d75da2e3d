#include "model/graph.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/fuse.h"
#include "model/layers/registry.h"

namespace lockstep {
namespace {

// Bounds for hostile files: calls between input and output, and calls in all (models within models multiply).
constexpr int kDeepest = 2000;
constexpr size_t kMostCalls = 100'000;

// keras/src/utils/naming.py: to_snake_case.
std::string SnakeCase(const std::string& name) {
  std::string spaced;
  const auto upper = [&](size_t i) { return i < name.size() && std::isupper(static_cast<unsigned char>(name[i])) != 0; };
  const auto lower = [&](size_t i) { return i < name.size() && std::islower(static_cast<unsigned char>(name[i])) != 0; };
  for (size_t i = 0; i < name.size(); ++i) {
    if (i > 0 && upper(i) && (lower(i + 1) || lower(i - 1))) spaced += '_';
    spaced += static_cast<char>(std::tolower(static_cast<unsigned char>(name[i])));
  }
  return spaced;
}

bool IsOperation(const Json& layer) {
  const std::string module = layer.value("module", std::string());
  return absl::StartsWith(module, "keras.src.ops") || absl::StartsWith(module, "keras.ops");
}

std::string ClassOf(const Json& layer) {
  return layer.contains("class_name") && layer["class_name"].is_string() ? layer["class_name"].get<std::string>() : "?";
}

// A tensor of a model: layer, call of that layer, and which of its outputs (only the first exists here).
struct History {
  std::string layer;
  int node = 0;
};

std::optional<History> ReadHistory(const Json& history) {
  if (!history.is_array() || history.size() < 3 || !history[0].is_string() || !history[1].is_number_integer() ||
      !history[2].is_number_integer() || history[2].get<int>() != 0) {
    return std::nullopt;
  }
  return History{history[0].get<std::string>(), history[1].get<int>()};
}

class Reader {
 public:
  explicit Reader(Graph& graph) : graph_(graph) {}

  // One for each thing that is wrong, then what would have been right.
  std::vector<std::string> Problems() const {
    std::vector<std::string> all = problems_;
    if (unknown_layer_) all.push_back(absl::StrCat("known layers are ", absl::StrJoin(KnownLayerNames(), ", ")));
    if (unknown_operation_) all.push_back(absl::StrCat("known operations are ", absl::StrJoin(KnownOperationNames(), ", ")));
    return all;
  }

  void ReadTop(const Json& config);

 private:
  // One model as it is being read: its layers by name, and the values of their calls once they are made.
  struct Scope {
    std::string prefix;
    std::map<std::string, const Json*> configs;
    std::map<std::string, int> layers;                     // simple layers → graph_.layers
    std::map<std::string, std::unique_ptr<Scope>> models;  // nested ones
    std::map<std::pair<std::string, int>, int> values;
    std::set<std::pair<std::string, int>> pending;
    std::vector<std::string> chain;  // Sequential: the layers in order
    std::vector<std::string> inputs, outputs;
    std::vector<int> output_nodes;
  };

  std::unique_ptr<Scope> ReadModel(const Json& model, const std::string& prefix, const std::string& group, bool trainable);
  void ReadLayer(const Json& layer, Scope& scope, const std::string& group, bool trainable);
  std::vector<int> CallModel(Scope& scope, const std::vector<int>& inputs);
  int ValueOf(Scope& scope, const History& history);
  int MakeCall(Scope& scope, const History& history);
  int CallLayer(int layer, const std::vector<int>& inputs);
  bool ReadArguments(const Json& node, std::vector<History>& tensors, OperationCall& call) const;
  int NewValue(Shape shape) {
    shapes_.push_back(std::move(shape));
    return graph_.values++;
  }
  int Problem(const std::string& where, const std::string& text) {
    problems_.push_back(absl::StrCat("layer ", where, ": ", text));
    return -1;
  }
  Shape BatchShape(const Json& layer_config, const std::string& name);

  Graph& graph_;
  std::vector<Shape> shapes_;  // by value
  std::vector<std::string> problems_;
  int depth_ = 0;
  bool unknown_layer_ = false, unknown_operation_ = false;
};

Shape Reader::BatchShape(const Json& config, const std::string& name) {
  Shape shape;
  const Json batch = config.contains("batch_shape") ? config["batch_shape"] : config.value("batch_input_shape", Json());
  if (batch.is_array()) {
    for (const Json& extent : batch) shape.push_back(extent.is_number_integer() ? extent.get<int64_t>() : -1);
  }
  if (shape.empty()) Problem(name, "has no batch_shape");
  for (const char* key : {"sparse", "ragged"}) {
    if (config.value(key, Json(false)) == Json(true)) Problem(name, absl::StrCat("option ", key, " is not supported"));
  }
  return shape;
}

// Class names are counted per model, in the order of its layers: "conv2d", "conv2d_1", …
std::string UniqueGroup(const std::string& class_name, std::map<std::string, int>& used) {
  const std::string base = SnakeCase(class_name);
  const int count = used[base]++;
  return count == 0 ? base : absl::StrCat(base, "_", count);
}

std::unique_ptr<Reader::Scope> Reader::ReadModel(const Json& model, const std::string& prefix, const std::string& group, bool trainable) {
  auto scope = std::make_unique<Scope>();
  scope->prefix = prefix;
  if (!model.contains("config") || !model["config"].is_object() || !model["config"].contains("layers") ||
      !model["config"]["layers"].is_array()) {
    Problem(prefix.empty() ? "(model)" : prefix, "has no layers");
    return scope;
  }
  const Json& config = model["config"];
  trainable = trainable && config.value("trainable", Json(true)) != Json(false);
  std::map<std::string, int> used;
  const bool sequential = ClassOf(model) == "Sequential";
  for (const Json& layer : config["layers"]) {
    const std::string class_name = ClassOf(layer);
    std::string name = layer.value("name", std::string());
    if (name.empty() && layer.contains("config") && layer["config"].is_object()) name = layer["config"].value("name", std::string());
    if (name.empty() || scope->configs.count(name) != 0) {
      Problem(absl::StrCat(prefix, name.empty() ? class_name : name), "its name is missing or used twice");
      continue;
    }
    scope->configs[name] = &layer;
    scope->chain.push_back(name);
    if (class_name == "InputLayer") {
      if (sequential) scope->inputs.push_back(name);
      continue;
    }
    const std::string child =
        IsOperation(layer) ? "" : absl::StrCat(group, group.empty() ? "" : "/", "layers/", UniqueGroup(class_name, used));
    if (class_name == "Functional" || class_name == "Sequential" || class_name == "Model") {
      scope->models[name] = ReadModel(layer, absl::StrCat(prefix, name, "/"), child, trainable);
    } else {
      ReadLayer(layer, *scope, child, trainable);
    }
  }
  if (sequential) return scope;
  const auto ends = [&](const char* key, std::vector<std::string>& names, std::vector<int>* nodes) {
    Json list = config.value(key, Json::array());
    if (list.is_array() && !list.empty() && list[0].is_string()) list = Json::array({list});
    for (const Json& end : list) {
      const std::optional<History> history = ReadHistory(end);
      if (!history || scope->configs.count(history->layer) == 0) {
        Problem(prefix.empty() ? "(model)" : prefix, absl::StrCat(key, " names no layer of it"));
        continue;
      }
      names.push_back(history->layer);
      if (nodes != nullptr) nodes->push_back(history->node);
    }
  };
  ends("input_layers", scope->inputs, nullptr);
  ends("output_layers", scope->outputs, &scope->output_nodes);
  return scope;
}

void Reader::ReadLayer(const Json& layer, Scope& scope, const std::string& group, bool trainable) {
  const std::string name = scope.configs.rbegin() == scope.configs.rend() ? "" : scope.chain.back();
  const std::string class_name = ClassOf(layer);
  static const Json kNothing = Json::object();
  const Json& config = layer.contains("config") && layer["config"].is_object() ? layer["config"] : kNothing;
  LayerOptions options(config);
  std::unique_ptr<Layer> made;
  const std::string where = absl::StrCat(scope.prefix, name, " (", class_name, ")");
  if (IsOperation(layer)) {
    options.Skip({"dtype"});
    OperationCall call;
    call.config = config;
    std::vector<History> tensors;
    const Json nodes = layer.value("inbound_nodes", Json::array());
    if (nodes.size() != 1 || !ReadArguments(nodes[0], tensors, call)) {
      Problem(where, "its call cannot be read");
      return;
    }
    made = MakeOperation(class_name, call, options);
    unknown_operation_ = unknown_operation_ || made == nullptr;
  } else {
    const absl::StatusOr<LayerFactory> known = FindLayer(class_name, layer);
    if (!known.ok()) {
      Problem(where, std::string(known.status().message()));
      unknown_layer_ = true;
      return;
    }
    made = (*known)(options);
  }
  const std::vector<std::string> problems = options.Problems();
  for (const std::string& problem : problems) Problem(where, problem);
  if (!problems.empty() || made == nullptr) return;
  GraphLayer& entry = graph_.layers.emplace_back();
  entry.name = absl::StrCat(scope.prefix, name);
  entry.hdf5_group = group;
  entry.layer = std::move(made);
  entry.trainable = trainable && options.trainable();
  scope.layers[name] = static_cast<int>(graph_.layers.size()) - 1;
}

// Collects the tensors among the arguments; call.arguments gets them as {"tensor": k}. False for what is no tensor, number or null.
bool Reader::ReadArguments(const Json& node, std::vector<History>& tensors, OperationCall& call) const {
  if (!node.is_object() || !node.contains("args") || !node["args"].is_array()) return false;
  call.arguments = Json::array();
  call.keywords = Json::object();
  const auto tensor = [&](const Json& value) -> bool {
    if (!value.is_object() || value.value("class_name", std::string()) != "__keras_tensor__" || !value.contains("config")) return false;
    const std::optional<History> history = ReadHistory(value["config"].value("keras_history", Json()));
    if (!history) return false;
    call.arguments.push_back(Json{{"tensor", static_cast<int>(tensors.size())}});
    tensors.push_back(*history);
    return true;
  };
  for (const Json& argument : node["args"]) {
    if (argument.is_array()) {
      if (!std::all_of(argument.begin(), argument.end(), tensor)) return false;
    } else if (argument.is_number()) {
      call.arguments.push_back(argument);
    } else if (!tensor(argument)) {
      return false;
    }
  }
  const Json keywords = node.value("kwargs", Json::object());
  for (const auto& [key, value] : keywords.items()) {
    // Keras's fit and predict say themselves whether they train, whatever the node was made with.
    if (key == "training" || value.is_null()) continue;
    call.keywords[key] = value;
  }
  return true;
}

int Reader::CallLayer(int index, const std::vector<int>& inputs) {
  GraphLayer& layer = graph_.layers[static_cast<size_t>(index)];
  if (graph_.calls.size() >= kMostCalls) return Problem(layer.name, absl::StrCat("the graph has more than ", kMostCalls, " calls"));
  std::vector<Shape> shapes;
  for (const int input : inputs) shapes.push_back(shapes_[static_cast<size_t>(input)]);
  if (layer.calls++ == 0) {
    auto variables = layer.layer->Build(shapes);
    if (!variables.ok()) return Problem(layer.name, std::string(variables.status().message()));
    layer.variables = std::move(*variables);
  }
  auto shape = layer.layer->OutputShape(shapes);
  if (!shape.ok()) return Problem(layer.name, std::string(shape.status().message()));
  const int output = NewValue(std::move(*shape));
  graph_.calls.push_back({index, layer.name, inputs, output, {}});
  return output;
}

int Reader::MakeCall(Scope& scope, const History& history) {
  const std::string where = absl::StrCat(scope.prefix, history.layer);
  const Json& config = *scope.configs[history.layer];
  const Json nodes = config.value("inbound_nodes", Json::array());
  if (history.node < 0 || static_cast<size_t>(history.node) >= nodes.size())
    return Problem(where, "a call of it is used that does not exist");
  std::vector<History> tensors;
  OperationCall call;
  if (!ReadArguments(nodes[static_cast<size_t>(history.node)], tensors, call)) return Problem(where, "its call cannot be read");
  if (!call.keywords.empty() && !IsOperation(config)) {
    return Problem(where, absl::StrCat("is called with ", call.keywords.begin().key(), ", which is not supported"));
  }
  std::vector<int> inputs;
  for (const History& tensor : tensors) {
    const int value = ValueOf(scope, tensor);
    if (value < 0) return -1;
    inputs.push_back(value);
  }
  const auto model = scope.models.find(history.layer);
  if (model != scope.models.end()) {
    const std::vector<int> outputs = CallModel(*model->second, inputs);
    return outputs.empty() ? -1 : outputs[0];
  }
  const auto layer = scope.layers.find(history.layer);
  return layer == scope.layers.end() ? -1 : CallLayer(layer->second, inputs);
}

int Reader::ValueOf(Scope& scope, const History& history) {
  const std::pair<std::string, int> key(history.layer, history.node);
  const auto found = scope.values.find(key);
  if (found != scope.values.end()) return found->second;
  const std::string where = absl::StrCat(scope.prefix, history.layer);
  if (scope.configs.count(history.layer) == 0) return Problem(where, "is used but does not exist");
  if (++depth_ > kDeepest || !scope.pending.insert(key).second) return Problem(where, "the graph has a cycle, or is too deep");
  const int value = MakeCall(scope, history);
  scope.pending.erase(key);
  --depth_;
  scope.values[key] = value;
  return value;
}

std::vector<int> Reader::CallModel(Scope& scope, const std::vector<int>& inputs) {
  scope.values.clear();
  const bool sequential = scope.outputs.empty();
  if (!sequential && inputs.size() != scope.inputs.size()) {
    Problem(scope.prefix, absl::StrCat("has ", scope.inputs.size(), " inputs, but is given ", inputs.size()));
    return {};
  }
  if (sequential) {
    int value = inputs.empty() ? -1 : inputs[0];
    for (const std::string& name : scope.chain) {
      if (ClassOf(*scope.configs[name]) == "InputLayer") continue;
      const auto model = scope.models.find(name);
      if (model != scope.models.end()) {
        const std::vector<int> outputs = CallModel(*model->second, {value});
        value = outputs.empty() ? -1 : outputs[0];
      } else {
        const auto layer = scope.layers.find(name);
        value = layer == scope.layers.end() ? -1 : CallLayer(layer->second, {value});
      }
      if (value < 0) return {};
    }
    return {value};
  }
  for (size_t i = 0; i < inputs.size(); ++i) scope.values[{scope.inputs[i], 0}] = inputs[i];
  std::vector<int> outputs;
  for (size_t i = 0; i < scope.outputs.size(); ++i) outputs.push_back(ValueOf(scope, {scope.outputs[i], scope.output_nodes[i]}));
  return outputs;
}

void Reader::ReadTop(const Json& model) {
  const std::string class_name = ClassOf(model);
  if (class_name != "Functional" && class_name != "Sequential" && class_name != "Model") {
    problems_.push_back(absl::StrCat("the model is a ", class_name, "; Functional and Sequential ones are supported"));
    return;
  }
  const std::unique_ptr<Scope> scope = ReadModel(model, "", "", true);
  if (!model.contains("config") || !model["config"].is_object()) return;
  const Json& config = model["config"];
  graph_.name = config.value("name", std::string());
  if (class_name == "Sequential" && scope->inputs.empty()) {
    const Json shape = config.value("build_input_shape", Json());
    if (!shape.is_array()) {
      problems_.emplace_back("the Sequential model has no input shape: it was saved before it was built");
      return;
    }
    for (const Json& extent : shape) graph_.input_shape.push_back(extent.is_number_integer() ? extent.get<int64_t>() : -1);
  } else if (scope->inputs.size() != 1 || (class_name != "Sequential" && scope->outputs.size() != 1)) {
    problems_.push_back(
        absl::StrCat("the model has ", scope->inputs.size(), " inputs and ", scope->outputs.size(), " outputs; one of each is supported"));
    return;
  } else {
    graph_.input_shape = BatchShape((*scope->configs[scope->inputs[0]])["config"], scope->inputs[0]);
  }
  graph_.input = NewValue(graph_.input_shape);
  const std::vector<int> outputs = CallModel(*scope, {graph_.input});
  if (!problems_.empty() || outputs.empty() || outputs[0] < 0) {
    if (problems_.empty()) problems_.emplace_back("the model has no output");
    return;
  }
  graph_.output = outputs[0];
  graph_.output_shape = shapes_[static_cast<size_t>(graph_.output)];
}

// Whether the input goes through nothing but a Rescaling or Normalization first.
bool RescalesInput(const Graph& graph) {
  for (const GraphCall& call : graph.calls) {
    if (std::find(call.inputs.begin(), call.inputs.end(), graph.input) == call.inputs.end()) continue;
    return graph.layers[static_cast<size_t>(call.layer)].layer->rescales();
  }
  return false;
}

}  // namespace

std::set<std::string> DtypePolicies(const Json& config) {
  std::set<std::string> policies;
  if (!config.is_object() || !config.contains("config") || !config["config"].is_object()) return policies;
  const Json& own = config["config"];
  if (own.contains("layers") && own["layers"].is_array()) {
    for (const Json& layer : own["layers"]) policies.merge(DtypePolicies(layer));
  } else if (ClassOf(config) != "InputLayer" && own.contains("dtype")) {
    const Json& dtype = own["dtype"];
    const bool policy = dtype.is_object() && dtype.contains("config") && dtype["config"].is_object() && dtype["config"].contains("name");
    const Json& name = policy ? dtype["config"]["name"] : dtype;
    if (name.is_string()) policies.insert(name.get<std::string>());
  }
  return policies;
}

absl::StatusOr<Graph> ReadGraph(const Json& config, bool fuse) {
  Graph graph;
  Reader reader(graph);
  try {
    reader.ReadTop(config);
  } catch (const Json::exception& error) {  // a value of another kind than Keras writes there
    return absl::InvalidArgumentError(absl::StrCat("the model's configuration is malformed: ", error.what()));
  }
  const std::vector<std::string> problems = reader.Problems();
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
  int next = 0;
  for (GraphLayer& layer : graph.layers) {
    layer.first_variable = next;
    next += static_cast<int>(layer.variables.size());
  }
  graph.rescales_input = RescalesInput(graph);
  if (fuse) Fuse(graph);
  MarkLastUses(graph);
  return graph;
}

}  // namespace lockstep
