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

enum class Gone { kNeither, kFirst, kSecond };

// For each pair of calls of which the second is the only user of the first, and has no other input: `take(first, second)` says
// which of the two it took into the other.
template <typename Take>
void ForEachPair(Graph& graph, Take&& take) {
  const std::vector<int> uses = CountUses(graph);
  std::map<int, size_t> producer;  // by value
  std::vector<bool> gone(graph.calls.size(), false);
  for (size_t i = 0; i < graph.calls.size(); ++i) {
    GraphCall& second = graph.calls[i];
    producer[second.output] = i;
    const auto before = second.inputs.size() == 1 ? producer.find(second.inputs[0]) : producer.end();
    if (before == producer.end() || uses[static_cast<size_t>(second.inputs[0])] != 1) continue;
    GraphCall& first = graph.calls[before->second];
    switch (take(first, second)) {
      case Gone::kNeither: break;
      case Gone::kFirst:
        second.inputs = first.inputs;
        gone[before->second] = true;
        break;
      case Gone::kSecond:
        first.output = second.output;
        producer[second.output] = before->second;
        gone[i] = true;
        break;
    }
  }
  size_t kept = 0;
  for (size_t i = 0; i < graph.calls.size(); ++i) {
    if (gone[i]) continue;
    if (kept != i) graph.calls[kept] = std::move(graph.calls[i]);
    ++kept;
  }
  graph.calls.resize(kept);
}

}  // namespace

void Fuse(Graph& graph) {
  ForEachPair(graph, [&](GraphCall& first, GraphCall& second) {
    GraphLayer& owner = graph.layers[static_cast<size_t>(first.layer)];
    GraphLayer& layer = graph.layers[static_cast<size_t>(second.layer)];
    // A layer that is called at several sites is the same at all of them.
    const Activation* activation = PureActivation(graph, second);
    if (activation != nullptr && owner.calls == 1 && owner.layer->Fuse(*activation)) return Gone::kSecond;
    const auto border = owner.layer->zero_padding();
    return border && layer.calls == 1 && layer.layer->FusePadding(*border) ? Gone::kFirst : Gone::kNeither;
  });
  ForEachPair(graph, [&](GraphCall& first, GraphCall& second) {
    const Layer& layer = *graph.layers[static_cast<size_t>(second.layer)].layer;
    if (first.follower >= 0 || second.output == graph.output) return Gone::kNeither;
    if (!graph.layers[static_cast<size_t>(first.layer)].layer->FuseFollower(layer)) return Gone::kNeither;
    first.follower = second.layer;
    return Gone::kSecond;
  });
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
