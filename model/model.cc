#include "model/model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "memory/place.h"
#include "model/activation.h"
#include "model/graph.h"

namespace lockstep {
namespace {

at::Tensor* Find(std::map<int, at::Tensor>* outputs, int call) {
  if (outputs == nullptr) return nullptr;
  const auto found = outputs->find(call);
  return found == outputs->end() ? nullptr : &found->second;
}

}  // namespace

bool CallGraph::Uses(const Segment& part, int value) const {
  for (int call = part.first; call < part.end; ++call) {
    const std::vector<int>& inputs = calls[static_cast<size_t>(call)].inputs;
    if (std::find(inputs.begin(), inputs.end(), value) != inputs.end()) return true;
  }
  return false;
}

bool CallGraph::MayCut(int call) const {
  absl::flat_hash_set<int> before;
  for (int i = 0; i < static_cast<int>(calls.size()); ++i) {
    for (const int layer : calls[static_cast<size_t>(i)].layers) {
      if (i < call) before.insert(layer);
      if (i >= call && before.contains(layer)) return false;
    }
  }
  return true;
}

bool CallGraph::MayStore(const Segment& part, int call) const {
  if (call < part.first || call >= part.end || !calls[static_cast<size_t>(call)].takes_output) return false;
  return values[static_cast<size_t>(calls[static_cast<size_t>(call)].output)].first_use < part.end;
}

bool CallGraph::MayRecompute(absl::Span<const Segment> segments, int first, int end) const {
  int done = first;
  for (const Segment& segment : segments) {
    if (segment.first < done || segment.end <= segment.first || segment.end > end) return false;
    if (!MayCut(segment.first) || !MayCut(segment.end)) return false;
    if (std::adjacent_find(segment.stored.begin(), segment.stored.end(), std::greater_equal<>()) != segment.stored.end()) return false;
    for (const int call : segment.stored) {
      if (!MayStore(segment, call)) return false;
    }
    if (!MayRecompute(segment.inner, segment.first, segment.end)) return false;
    done = segment.end;
  }
  return true;
}

class Model::Program {
 public:
  Graph graph;
  CallGraph call_graph;
  at::ScalarType dtype = at::kFloat;
  std::vector<VariableInfo> variables;
  std::vector<KernelLayout> layouts;  // by variable
  std::vector<StatisticSite> statistic_sites;
  std::vector<int64_t> input_shape, output_shape;
  OutputActivation output_activation = OutputActivation::kNone;

  void AddVariables();
  void AddStatisticSites();
  void FindOutputActivation();
  void DescribeCalls();
  absl::Status CheckArchive(const KerasArchive& archive) const;
};

void Model::Program::AddVariables() {
  for (const GraphLayer& layer : graph.layers) {
    for (size_t i = 0; i < layer.variables.size(); ++i) {
      const VariableSpec& spec = layer.variables[i];
      VariableInfo info;
      info.path = absl::StrCat(layer.name, "/", spec.name);
      info.hdf5_path = absl::StrCat(layer.hdf5_group, "/vars/", i);
      info.layer = layer.name;
      info.name = spec.name;
      info.keras_shape = spec.shape;
      info.run_shape = RunShape(spec.layout, spec.shape);
      info.trainable = spec.trainable && layer.trainable;
      info.statistic = spec.statistic;
      info.regularizer = spec.regularizer;
      variables.push_back(std::move(info));
      layouts.push_back(spec.layout);
    }
  }
}

void Model::Program::AddStatisticSites() {
  for (const GraphCall& call : graph.calls) {
    const GraphLayer& layer = graph.layers[static_cast<size_t>(call.layer)];
    for (const auto& [index, momentum] : layer.layer->StatisticUpdates(layer.trainable)) {
      statistic_sites.push_back({layer.first_variable + index, momentum});
    }
  }
}

void Model::Program::FindOutputActivation() {
  for (const GraphCall& call : graph.calls) {
    if (call.output != graph.output) continue;
    const Activation* activation = graph.layers[static_cast<size_t>(call.layer)].layer->activation();
    if (activation == nullptr) return;
    if (activation->kind == Activation::Kind::kSoftmax) output_activation = OutputActivation::kSoftmax;
    if (activation->kind == Activation::Kind::kSigmoid) output_activation = OutputActivation::kSigmoid;
  }
}

void Model::Program::DescribeCalls() {
  call_graph.input = graph.input;
  call_graph.output = graph.output;
  call_graph.values.resize(static_cast<size_t>(graph.values));
  for (const GraphCall& call : graph.calls) {
    const int index = static_cast<int>(call_graph.calls.size());
    CallGraph::Call& out = call_graph.calls.emplace_back(CallGraph::Call{call.name, call.inputs, call.output, {}});
    out.takes_output = call.follower < 0 && graph.layers[static_cast<size_t>(call.layer)].layer->takes_output();
    for (const int layer : {call.layer, call.follower}) {
      if (layer >= 0 && !graph.layers[static_cast<size_t>(layer)].variables.empty()) out.layers.push_back(layer);
    }
    call_graph.values[static_cast<size_t>(call.output)].made_by = index;
    for (const int input : call.inputs) {
      CallGraph::Value& value = call_graph.values[static_cast<size_t>(input)];
      if (value.first_use < 0) value.first_use = index;
      value.last_use = index;
    }
  }
  CallGraph::Value& output = call_graph.values[static_cast<size_t>(graph.output)];
  output.last_use = static_cast<int>(graph.calls.size());
  if (output.first_use < 0) output.first_use = output.last_use;
}

absl::Status Model::Program::CheckArchive(const KerasArchive& archive) const {
  std::vector<std::string> problems;
  for (const VariableInfo& variable : variables) {
    const auto found = archive.arrays().find(variable.hdf5_path);
    if (found == archive.arrays().end()) {
      problems.push_back(absl::StrCat("variable ", variable.path, ": the weights file has no ", variable.hdf5_path));
    } else if (found->second.shape != variable.keras_shape) {
      problems.push_back(absl::StrCat("variable ", variable.path, ": the weights file has shape ", ShapeText(found->second.shape),
                                      ", the configuration says ", ShapeText(variable.keras_shape)));
    }
  }
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

Model::Model(std::unique_ptr<Program> program) : program_(std::move(program)) {}
Model::~Model() = default;

absl::StatusOr<std::unique_ptr<Model>> Model::Load(const KerasArchive& archive, const Options& options) {
  auto program = std::make_unique<Program>();
  ASSIGN_OR_RETURN(program->graph, ReadGraph(archive.config(), options.fuse));
  program->dtype = options.dtype;
  program->AddVariables();
  program->AddStatisticSites();
  program->FindOutputActivation();
  program->DescribeCalls();
  const Graph& graph = program->graph;
  program->input_shape.assign(graph.input_shape.begin() + (graph.input_shape.empty() ? 0 : 1), graph.input_shape.end());
  program->output_shape.assign(graph.output_shape.begin() + (graph.output_shape.empty() ? 0 : 1), graph.output_shape.end());
  RETURN_IF_ERROR(program->CheckArchive(archive));
  return std::unique_ptr<Model>(new Model(std::move(program)));
}

const std::string& Model::name() const { return program_->graph.name; }
at::ScalarType Model::dtype() const { return program_->dtype; }
absl::Span<const VariableInfo> Model::variables() const { return program_->variables; }
const std::vector<int64_t>& Model::input_shape() const { return program_->input_shape; }
const std::vector<int64_t>& Model::output_shape() const { return program_->output_shape; }
bool Model::rescales_input() const { return program_->graph.rescales_input; }
Model::OutputActivation Model::output_activation() const { return program_->output_activation; }
absl::Span<const StatisticSite> Model::statistic_sites() const { return program_->statistic_sites; }

const CallGraph& Model::call_graph() const { return program_->call_graph; }

absl::StatusOr<at::Tensor> Model::InitialValue(const KerasArchive& archive, int variable) const {
  const VariableInfo& info = program_->variables[static_cast<size_t>(variable)];
  at::Tensor keras = at::empty(info.keras_shape, at::TensorOptions().dtype(program_->dtype));
  if (program_->dtype == at::kDouble) {
    RETURN_IF_ERROR(archive.ReadInto<double>(info.hdf5_path, info.keras_shape, keras.data_ptr<double>()));
  } else {
    RETURN_IF_ERROR(archive.ReadInto<float>(info.hdf5_path, info.keras_shape, keras.data_ptr<float>()));
  }
  return FromKeras(variable, keras);
}

at::Tensor Model::FromKeras(int variable, const at::Tensor& keras) const {
  const auto index = static_cast<size_t>(variable);
  switch (program_->layouts[index]) {
    case KernelLayout::kConvolution: return keras.permute({3, 0, 1, 2}).contiguous();
    case KernelLayout::kDepthwise: return keras.permute({2, 3, 0, 1}).contiguous().view(program_->variables[index].run_shape);
    case KernelLayout::kAsIs: break;
  }
  return keras;
}

at::Tensor Model::ToKeras(int variable, const at::Tensor& run) const {
  const auto index = static_cast<size_t>(variable);
  const Shape& shape = program_->variables[index].keras_shape;
  switch (program_->layouts[index]) {
    case KernelLayout::kConvolution: return run.permute({1, 2, 3, 0}).contiguous();
    case KernelLayout::kDepthwise: return run.view({shape[2], shape[3], shape[0], shape[1]}).permute({2, 3, 0, 1}).contiguous();
    case KernelLayout::kAsIs: break;
  }
  return run;
}

at::Tensor Model::Forward(const at::Tensor& images, absl::Span<const at::Tensor> variables, ForwardContext& context) const {
  const Graph& graph = program_->graph;
  context.statistics.clear();
  context.logits = at::Tensor();
  std::vector<at::Tensor> values(static_cast<size_t>(graph.values));
  values[static_cast<size_t>(graph.input)] = images;
  RunCalls({0, static_cast<int>(graph.calls.size()), {}}, values, variables, context);
  return std::move(values[static_cast<size_t>(graph.output)]);
}

void Model::RunCalls(const Segment& part, std::vector<at::Tensor>& values, absl::Span<const at::Tensor> variables,
                     ForwardContext& context) const {
  const Graph& graph = program_->graph;
  std::vector<at::Tensor> inputs;
  for (auto site = static_cast<size_t>(part.first); site < static_cast<size_t>(part.end); ++site) {
    const GraphCall& call = graph.calls[site];
    const GraphLayer& layer = graph.layers[static_cast<size_t>(call.layer)];
    inputs.clear();
    for (size_t i = 0; i < call.inputs.size(); ++i) {
      at::Tensor& value = values[static_cast<size_t>(call.inputs[i])];
      inputs.push_back(call.last_use[i] ? std::move(value) : value);
    }
    at::Tensor known;
    if (at::Tensor* const output = Find(context.known, static_cast<int>(site))) known = std::move(*output);
    const auto frame_of = [&](const GraphLayer& of, const Follower* follower) {
      const auto own = variables.subspan(static_cast<size_t>(of.first_variable), of.variables.size());
      return Frame{own, of.first_variable, site, of.trainable, call.output == graph.output, follower, known, context};
    };
    memory::SetLayer(call.name);
    if (context.observer) context.observer(context, static_cast<int>(site), nullptr);
    at::Tensor& output = values[static_cast<size_t>(call.output)];
    if (call.follower >= 0) {
      const GraphLayer& next = graph.layers[static_cast<size_t>(call.follower)];
      const Frame next_frame = frame_of(next, nullptr);
      const Follower follower{*next.layer, next_frame};
      output = layer.layer->Forward(absl::MakeSpan(inputs), frame_of(layer, &follower));
    } else {
      output = layer.layer->Forward(absl::MakeSpan(inputs), frame_of(layer, nullptr));
    }
    if (at::Tensor* const stored = Find(context.stores, static_cast<int>(site))) *stored = output.detach();
    if (context.forgets) output = output.detach().set_requires_grad(output.requires_grad());
    if (context.observer) context.observer(context, static_cast<int>(site), &output);
  }
  memory::SetLayer({});
}

}  // namespace lockstep
