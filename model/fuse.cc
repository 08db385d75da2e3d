#include "model/fuse.h"

#include <algorithm>
#include <map>
#include <vector>

#include "model/activation.h"

namespace lockstep {
namespace {

std::vector<int> CountUses(const Graph& graph) {
  std::vector<int> uses(static_cast<size_t>(graph.values), 0);
  for (const GraphCall& call : graph.calls) {
    for (const int input : call.inputs) ++uses[static_cast<size_t>(input)];
  }
  ++uses[static_cast<size_t>(graph.output)];
  return uses;
}

// A layer that is an activation and nothing else.
const Activation* PureActivation(const Graph& graph, const GraphCall& call) {
  const GraphLayer& layer = graph.layers[static_cast<size_t>(call.layer)];
  return layer.variables.empty() && call.inputs.size() == 1 ? layer.layer->activation() : nullptr;
}

void Drop(const std::vector<bool>& gone, Graph& graph) {
  size_t kept = 0;
  for (size_t i = 0; i < graph.calls.size(); ++i) {
    if (gone[i]) continue;
    if (kept != i) graph.calls[kept] = std::move(graph.calls[i]);
    ++kept;
  }
  graph.calls.resize(kept);
}

void FuseFollowers(Graph& graph) {
  const std::vector<int> uses = CountUses(graph);
  std::map<int, size_t> producer;  // by value
  std::vector<bool> gone(graph.calls.size(), false);
  for (size_t i = 0; i < graph.calls.size(); ++i) {
    GraphCall& call = graph.calls[i];
    producer[call.output] = i;
    const auto before = call.inputs.size() == 1 ? producer.find(call.inputs[0]) : producer.end();
    if (before == producer.end() || uses[static_cast<size_t>(call.inputs[0])] != 1 || call.output == graph.output) continue;
    GraphCall& previous = graph.calls[before->second];
    const Layer& layer = *graph.layers[static_cast<size_t>(call.layer)].layer;
    if (previous.follower >= 0 || !graph.layers[static_cast<size_t>(previous.layer)].layer->FuseFollower(layer)) continue;
    previous.follower = call.layer;
    previous.output = call.output;
    producer[call.output] = before->second;
    gone[i] = true;
  }
  Drop(gone, graph);
}

}  // namespace

void Fuse(Graph& graph) {
  const std::vector<int> uses = CountUses(graph);
  std::map<int, size_t> producer;  // by value
  std::vector<bool> gone(graph.calls.size(), false);
  for (size_t i = 0; i < graph.calls.size(); ++i) {
    GraphCall& call = graph.calls[i];
    producer[call.output] = i;
    const auto before = call.inputs.size() == 1 ? producer.find(call.inputs[0]) : producer.end();
    if (before == producer.end() || uses[static_cast<size_t>(call.inputs[0])] != 1) continue;
    GraphCall& previous = graph.calls[before->second];
    GraphLayer& owner = graph.layers[static_cast<size_t>(previous.layer)];
    GraphLayer& layer = graph.layers[static_cast<size_t>(call.layer)];
    // A layer that is called at several sites is the same at all of them.
    const Activation* activation = PureActivation(graph, call);
    if (activation != nullptr && owner.calls == 1 && owner.layer->Fuse(*activation)) {
      previous.output = call.output;
      producer[call.output] = before->second;
      gone[i] = true;
    } else if (const auto border = owner.layer->zero_padding(); border && layer.calls == 1 && layer.layer->FusePadding(*border)) {
      call.inputs = previous.inputs;
      gone[before->second] = true;
    }
  }
  Drop(gone, graph);
  FuseFollowers(graph);
}

void MarkLastUses(Graph& graph) {
  std::vector<bool> used(static_cast<size_t>(graph.values), false);
  used[static_cast<size_t>(graph.output)] = true;
  for (auto call = graph.calls.rbegin(); call != graph.calls.rend(); ++call) {
    call->last_use.assign(call->inputs.size(), false);
    // Backwards here too: a value that one call takes twice is let go of at its second place.
    for (size_t i = call->inputs.size(); i-- > 0;) {
      const auto value = static_cast<size_t>(call->inputs[i]);
      call->last_use[i] = !used[value];
      used[value] = true;
    }
  }
}

}  // namespace lockstep
