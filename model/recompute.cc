#include "model/recompute.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <utility>

namespace lockstep {

using torch::autograd::Edge;

// Where a piece's autograd graph ends: the gradients of what enters it, as the engine added them up. (A leaf would lay them out anew.)
class TrainingPass::Catch final : public torch::autograd::Node {
 public:
  // `x` shares the memory of a value, and has no history yet.
  Edge Add(const at::Tensor& x) {
    torch::autograd::set_history(x, shared_from_this());
    return torch::autograd::impl::gradient_edge(x);
  }
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    gradients_ = std::move(gradients);
    return {};
  }
  at::Tensor Take(uint32_t i) { return i < gradients_.size() ? std::exchange(gradients_[i], at::Tensor()) : at::Tensor(); }

 private:
  torch::autograd::variable_list gradients_;
};

// Where backward of a piece starts: gives the gradients of what leaves it away, so that nobody holds them while it goes on.
class Start final : public torch::autograd::Node {
 public:
  Start(torch::autograd::edge_list roots, torch::autograd::variable_list gradients, const at::Tensor& signal)
      : torch::autograd::Node(std::move(roots)), gradients_(std::move(gradients)) {
    add_input_metadata(signal);
  }
  torch::autograd::variable_list apply(torch::autograd::variable_list&&) override { return std::move(gradients_); }

 private:
  torch::autograd::variable_list gradients_;
};

void RunBackward(torch::autograd::edge_list roots, torch::autograd::variable_list gradients) {
  const at::Tensor signal = at::zeros({1});
  const auto start = std::make_shared<Start>(std::move(roots), std::move(gradients), signal);
  torch::autograd::Engine::get_default_engine().execute({Edge(start, 0)}, {signal}, /*keep_graph=*/false, /*create_graph=*/false,
                                                        /*accumulate_grad=*/true);
}

struct TrainingPass::Piece {
  Segment calls;
  bool again = false;        // let go of, and computed again: what it is made of then is in `inner`
  std::vector<int> uses;     // values that enter it and that it uses
  std::vector<bool> passes;  // by use: others of the same stretch use it afterwards
  std::vector<int> makes;    // values made by it that are used afterwards
  // Calls that take their output when they come again, beside those whose output is stored: of these only its shape, because nothing in
  // the piece uses it.
  std::vector<int> shaped;
  std::vector<Piece> inner;
  // Of the pass at hand. Edges without a function: no gradient.
  std::vector<at::Tensor> inputs;     // by use, if it is computed again
  std::map<int, at::Tensor> outputs;  // by call that takes it
  std::shared_ptr<Catch> caught;
  std::vector<Edge> entries, exits;  // by use, by make

  // `stretch`: the calls that it is a part of.
  Piece(const CallGraph& graph, const Segment& part, bool twice, const Segment& stretch) : calls(part), again(twice) {
    for (int value = 0; value < static_cast<int>(graph.values.size()); ++value) {
      const CallGraph::Value& life = graph.values[static_cast<size_t>(value)];
      if (life.made_by >= part.first && life.made_by < part.end) {
        if (life.last_use >= part.end) makes.push_back(value);
      } else if (graph.Uses(part, value)) {
        uses.push_back(value);
        passes.push_back(graph.Uses({part.end, stretch.end, {}}, value));
      }
    }
    if (!again) return;
    for (int call = part.first; call < part.end; ++call) {
      if (graph.calls[static_cast<size_t>(call)].takes_output && !graph.MayStore(part, call)) shaped.push_back(call);
    }
    inner = Cut(graph, part, part.inner);
  }

  // A stretch of calls, cut where segments begin and end.
  static std::vector<Piece> Cut(const CallGraph& graph, const Segment& stretch, absl::Span<const Segment> segments) {
    std::vector<Piece> pieces;
    int done = stretch.first;
    const auto keep = [&](int end) {
      if (end > done) pieces.emplace_back(graph, Segment{done, end, {}}, false, stretch);
    };
    for (const Segment& segment : segments) {
      keep(segment.first);
      pieces.emplace_back(graph, segment, true, stretch);
      done = segment.end;
    }
    keep(stretch.end);
    return pieces;
  }

  void Clear() {
    inputs.clear();
    outputs.clear();
    caught.reset();
    entries.clear();
    exits.clear();
    for (Piece& piece : inner) piece.Clear();
  }

  // Its values, with nothing kept for backward but what enters it and what it stores.
  std::vector<at::Tensor> RunAndForget(const Model& model, std::vector<at::Tensor> entering, absl::Span<const at::Tensor> variables,
                                       ForwardContext& context) {
    std::vector<at::Tensor> values(model.call_graph().values.size());
    for (size_t i = 0; i < uses.size(); ++i) {
      values[static_cast<size_t>(uses[i])] = entering[i].detach().set_requires_grad(entering[i].requires_grad());
    }
    inputs = std::move(entering);
    for (const int call : calls.stored) outputs[call];
    for (const int call : shaped) outputs[call];
    context.stores = &outputs;
    context.forgets = true;
    model.RunCalls(calls, values, variables, context);
    context.forgets = false;
    context.stores = nullptr;
    for (const int call : shaped) {
      at::Tensor& output = outputs[call];
      output = at::empty({1}, output.options()).expand(output.sizes());
    }
    return values;
  }

  // Its values. Of those that enter, the ones that require gradients get an end of the graph.
  std::vector<at::Tensor> Run(const Model& model, std::vector<at::Tensor> entering, absl::Span<const at::Tensor> variables,
                              ForwardContext& context) {
    std::vector<at::Tensor> values(model.call_graph().values.size());
    caught = std::make_shared<Catch>();
    entries.clear();
    for (size_t i = 0; i < uses.size(); ++i) {
      at::Tensor value = entering[i].detach();
      entries.push_back(entering[i].requires_grad() ? caught->Add(value) : Edge());
      entering[i].reset();
      values[static_cast<size_t>(uses[i])] = std::move(value);
    }
    model.RunCalls(calls, values, variables, context);
    exits.clear();
    for (const int made : makes) {
      const at::Tensor& value = values[static_cast<size_t>(made)];
      exits.push_back(value.requires_grad() ? torch::autograd::impl::gradient_edge(value) : Edge());
    }
    return values;
  }

  // The pieces of a stretch, one after another; the values of the last. `crossing`, by value: what goes from piece to piece, without
  // history; requires_grad says whether it has a gradient.
  static std::vector<at::Tensor> RunAll(std::vector<Piece>& pieces, const Model& model, std::vector<at::Tensor> crossing,
                                        absl::Span<const at::Tensor> variables, ForwardContext& context) {
    std::vector<at::Tensor> values;
    for (Piece& piece : pieces) {
      std::vector<at::Tensor> entering;
      for (size_t i = 0; i < piece.uses.size(); ++i) {
        at::Tensor& value = crossing[static_cast<size_t>(piece.uses[i])];
        entering.push_back(piece.passes[i] ? value : std::move(value));
        if (!piece.passes[i]) value = at::Tensor();
      }
      values.clear();
      values = piece.again ? piece.RunAndForget(model, std::move(entering), variables, context)
                           : piece.Run(model, std::move(entering), variables, context);
      if (&piece == &pieces.back()) break;
      for (const int made : piece.makes) {
        const at::Tensor& value = values[static_cast<size_t>(made)];
        crossing[static_cast<size_t>(made)] = value.detach().set_requires_grad(value.requires_grad());
      }
    }
    return values;
  }

  // `gradients`: by value, of what is used later; afterwards of what enters.
  void Backward(const Model& model, std::vector<at::Tensor>& gradients, absl::Span<const at::Tensor> variables,
                const ForwardContext& context) {
    if (again) {
      RunAgain(model, variables, context);
      for (size_t i = inner.size(); i-- > 0;) inner[i].Backward(model, gradients, variables, context);
      return;
    }
    std::vector<Edge> roots;
    std::vector<at::Tensor> root_gradients;
    const auto add = [&](int value, const Edge& edge) {
      at::Tensor& gradient = gradients[static_cast<size_t>(value)];
      if (!edge.is_valid() || !gradient.defined()) return;
      roots.push_back(edge);
      root_gradients.push_back(std::move(gradient));
      gradient = at::Tensor();
    };
    for (size_t i = 0; i < makes.size(); ++i) add(makes[i], exits[i]);
    // First of what is added up for it: those that use it later come before this piece's own.
    for (size_t i = 0; i < uses.size(); ++i) add(uses[i], entries[i]);
    exits.clear();
    if (!roots.empty()) RunBackward(std::move(roots), std::move(root_gradients));
    TakeGradients(gradients);
  }

  void RunAgain(const Model& model, absl::Span<const at::Tensor> variables, const ForwardContext& context) {
    ForwardContext second = context;
    second.again = true;
    second.statistics.clear();  // they were told of the first time
    second.known = &outputs;
    std::vector<at::Tensor> crossing(model.call_graph().values.size());
    for (size_t i = 0; i < uses.size(); ++i) crossing[static_cast<size_t>(uses[i])] = std::move(inputs[i]);
    inputs.clear();
    RunAll(inner, model, std::move(crossing), variables, second);
    outputs.clear();
  }

  void TakeGradients(std::vector<at::Tensor>& gradients) {
    for (size_t i = 0; i < uses.size(); ++i) {
      if (entries[i].is_valid()) gradients[static_cast<size_t>(uses[i])] = caught->Take(entries[i].input_nr);
    }
    Clear();
  }
};

TrainingPass::TrainingPass(const Model& model, absl::Span<const Segment> segments) : model_(model) {
  if (segments.empty()) return;
  const CallGraph& graph = model.call_graph();
  if (!graph.MayRecompute(segments)) std::abort();
  pieces_ = Piece::Cut(graph, {0, static_cast<int>(graph.calls.size()), {}}, segments);
}

TrainingPass::~TrainingPass() = default;

void TrainingPass::Clear() {
  for (Piece& piece : pieces_) piece.Clear();
}

at::Tensor TrainingPass::Forward(const at::Tensor& images, absl::Span<const at::Tensor> variables, ForwardContext& context) {
  if (pieces_.empty()) return model_.Forward(images, variables, context);
  Clear();
  context.statistics.clear();
  context.logits.reset();
  const CallGraph& graph = model_.call_graph();
  std::vector<at::Tensor> crossing(graph.values.size());
  crossing[static_cast<size_t>(graph.input)] = images;
  return Piece::RunAll(pieces_, model_, std::move(crossing), variables, context)[static_cast<size_t>(graph.output)];
}

void TrainingPass::Backward(at::Tensor loss, absl::Span<const at::Tensor> variables, const ForwardContext& context) {
  std::vector<at::Tensor> gradients(pieces_.empty() ? 0 : model_.call_graph().values.size());
  {
    const std::vector<Edge> roots = {torch::autograd::impl::gradient_edge(loss)};
    const std::vector<at::Tensor> ones = {at::ones_like(loss)};
    loss.reset();
    torch::autograd::Engine::get_default_engine().execute(roots, ones, /*keep_graph=*/false, /*create_graph=*/false,
                                                          /*accumulate_grad=*/true);
  }
  if (pieces_.empty()) return;
  // From the loss on the engine went through the last piece, too.
  pieces_.back().TakeGradients(gradients);
  for (size_t i = pieces_.size() - 1; i-- > 0;) pieces_[i].Backward(model_, gradients, variables, context);
}

}  // namespace lockstep
