#include "model/recompute.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "model/test_archive.h"

namespace lockstep {
namespace {

// A graph that no two seeds share: convolutions, normalisation, dropout, activations and sums of several values, each used by up to four
// others, far and near; one convolution is called twice.
class RandomGraph {
 public:
  explicit RandomGraph(uint64_t seed) : random_(seed) {
    AddLayer("InputLayer", "in", {{"name", "in"}, {"batch_shape", {nullptr, 6, 6, 3}}}, {});
    for (int i = 0; i < 18; ++i) {
      switch (random_() % 6) {
        case 0:
        case 1: Convolution(); break;
        case 2: Normalisation(); break;
        case 3: AddLayer("Dropout", absl::StrCat("drop", i), {{"name", absl::StrCat("drop", i)}, {"rate", 0.4}}, {Earlier()}); break;
        case 4: AddLayer("ReLU", absl::StrCat("relu", i), {{"name", absl::StrCat("relu", i)}}, {Earlier()}); break;
        default: AddLayer("Add", absl::StrCat("add", i), {{"name", absl::StrCat("add", i)}}, {Earlier(), Earlier(), Earlier()});
      }
    }
    const std::string shared = Convolution();
    layers_.back()["inbound_nodes"].push_back(Node({{Earlier(), 0}}));
    names_.emplace_back(shared, 1);
    std::vector<std::pair<std::string, int>> all(names_.begin() + 1, names_.end());
    layers_.push_back({{"class_name", "Add"}, {"name", "out"}, {"config", {{"name", "out"}}}, {"inbound_nodes", {Node(all)}}});
    archive_.config = {
        {"class_name", "Functional"},
        {"config", {{"name", "m"}, {"layers", layers_}, {"input_layers", {{"in", 0, 0}}}, {"output_layers", {{"out", 0, 0}}}}}};
  }
  const TestArchive& archive() const { return archive_; }

 private:
  static Json Node(const std::vector<std::pair<std::string, int>>& from) {
    Json tensors = Json::array();
    for (const auto& [name, node] : from) {
      tensors.push_back({{"class_name", "__keras_tensor__"}, {"config", {{"keras_history", {name, node, 0}}}}});
    }
    return {{"args", {from.size() == 1 ? tensors[0] : tensors}}, {"kwargs", Json::object()}};
  }
  std::string Earlier() { return names_[names_.size() - 1 - random_() % std::min<size_t>(names_.size(), 4)].first; }
  void AddLayer(const std::string& kind, const std::string& name, const Json& config, const std::vector<std::string>& from) {
    std::vector<std::pair<std::string, int>> nodes;
    for (const std::string& one : from) nodes.emplace_back(one, 0);
    layers_.push_back({{"class_name", kind},
                       {"name", name},
                       {"config", config},
                       {"inbound_nodes", from.empty() ? Json::array() : Json::array({Node(nodes)})}});
    names_.emplace_back(name, 0);
  }
  void Fill(const std::string& path, const std::vector<int64_t>& shape, double low) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    std::vector<double> values;
    for (int64_t i = 0; i < count; ++i) values.push_back(low + std::uniform_real_distribution<double>(0, 0.5)(random_));
    archive_.Array(path, shape, std::move(values));
  }
  std::string Convolution() {
    const int number = convolutions_++;
    const std::string group = number == 0 ? "layers/conv2d/vars/" : absl::StrCat("layers/conv2d_", number, "/vars/");
    const std::string name = absl::StrCat("conv", number);
    AddLayer("Conv2D", name, {{"name", name}, {"filters", 3}, {"kernel_size", 1 + 2 * (number % 2)}, {"padding", "same"}}, {Earlier()});
    const int side = 1 + 2 * (number % 2);
    Fill(group + "0", {side, side, 3, 3}, -0.25);
    Fill(group + "1", {3}, -0.25);
    return name;
  }
  void Normalisation() {
    const int number = normalisations_++;
    const std::string group =
        number == 0 ? "layers/batch_normalization/vars/" : absl::StrCat("layers/batch_normalization_", number, "/vars/");
    const std::string name = absl::StrCat("norm", number);
    AddLayer("BatchNormalization", name, {{"name", name}}, {Earlier()});
    for (int i = 0; i < 4; ++i) Fill(absl::StrCat(group, i), {3}, i == 0 || i == 3 ? 0.75 : -0.25);
  }

  std::mt19937_64 random_;
  TestArchive archive_;
  Json layers_ = Json::array();
  std::vector<std::pair<std::string, int>> names_;
  int convolutions_ = 0, normalisations_ = 0;
};

struct Outcome {
  std::vector<at::Tensor> gradients, statistics;
  at::Tensor output;
};

Outcome Step(const Model& model, const KerasArchive& archive, absl::Span<const Segment> segments, const at::Tensor& images, int frozen) {
  std::vector<at::Tensor> variables;
  for (size_t i = 0; i < model.variables().size(); ++i) {
    variables.push_back(*model.InitialValue(archive, static_cast<int>(i)));
    // What comes before the first trained layer has no gradient.
    if (model.variables()[i].trainable && static_cast<int>(i) >= frozen) variables.back().set_requires_grad(true);
  }
  TrainingPass pass(model, segments);
  Outcome outcome;
  // Gradients of two micro-batches add up.
  for (int64_t first = 0; first < images.size(0); first += 3) {
    ForwardContext context;
    context.training = true;
    context.seed = 5;
    context.first_sample = first;
    at::Tensor output = pass.Forward(images.narrow(0, first, 3), variables, context);
    for (const StatisticUpdate& update : context.statistics) outcome.statistics.push_back(update.batch_value);
    outcome.output = output.detach().clone();
    at::Tensor loss = (output * output).sum();
    output.reset();
    pass.Backward(std::move(loss), variables, context);
  }
  for (const at::Tensor& variable : variables) outcome.gradients.push_back(variable.grad());
  return outcome;
}

void ExpectSame(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b, const std::string& where) {
  ASSERT_EQ(a.size(), b.size()) << where;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].defined(), b[i].defined()) << where << ", " << i;
    ASSERT_TRUE(!a[i].defined() || at::equal(a[i], b[i])) << where << ", " << i;
  }
}

// Calls [first, end), in segments of up to `most` cuts, within which there are others, and so on for `levels`.
std::vector<Segment> RandomSegments(const CallGraph& graph, std::mt19937_64& random, int first, int end, size_t most, int levels) {
  std::vector<int> cuts;
  for (int call = first; call <= end; ++call) {
    if (graph.MayCut(call)) cuts.push_back(call);
  }
  std::vector<Segment> segments;
  for (size_t i = 0; i + 1 < cuts.size();) {
    const size_t next = std::min(i + 1 + random() % most, cuts.size() - 1);
    if (random() % 4 != 0) {
      Segment& segment = segments.emplace_back(Segment{cuts[i], cuts[next], {}, {}});
      for (int call = segment.first; call < segment.end; ++call) {
        if (graph.MayStore(segment, call) && random() % 2 == 0) segment.stored.push_back(call);
      }
      if (levels > 1) segment.inner = RandomSegments(graph, random, segment.first, segment.end, std::max<size_t>(most / 2, 1), levels - 1);
    }
    i = next;
  }
  return segments;
}

void Count(const std::vector<Segment>& segments, size_t level, std::vector<int>& by_level, int& stored) {
  by_level[level] += static_cast<int>(segments.size());
  for (const Segment& segment : segments) {
    stored += static_cast<int>(segment.stored.size());
    Count(segment.inner, level + 1, by_level, stored);
  }
}

TEST(TrainingPass, AnySegmentsOfAnyGraphLeaveTheBitsAsTheyAre) {
  at::set_num_threads(1);
  at::manual_seed(1);
  const at::Tensor images = at::rand({6, 6, 6, 3});
  std::vector<int> by_level(4);
  int stored_in_all = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const RandomGraph graph(seed);
    const auto archive = KerasArchive::FromBytes(graph.archive().Bytes(), "net.keras");
    ASSERT_TRUE(archive.ok()) << archive.status();
    const auto model = Model::Load(**archive, {});
    ASSERT_TRUE(model.ok()) << model.status();
    std::mt19937_64 random(seed);
    const int frozen = static_cast<int>(random() % 2 * (random() % 8));
    const Outcome plain = Step(**model, **archive, {}, images, frozen);
    const CallGraph& calls = (*model)->call_graph();
    const int last = static_cast<int>(calls.calls.size()) - 1;
    for (int round = 0; round < 5; ++round) {
      const std::vector<Segment> segments = RandomSegments(calls, random, 0, last, round < 2 ? 5 : 12, 1 + round % 3);
      ASSERT_TRUE(calls.MayRecompute(segments));
      Count(segments, 0, by_level, stored_in_all);
      const Outcome again = Step(**model, **archive, segments, images, frozen);
      const std::string where = absl::StrCat("seed ", seed, ", round ", round);
      ExpectSame({plain.output}, {again.output}, where);
      ExpectSame(plain.gradients, again.gradients, where);
      ExpectSame(plain.statistics, again.statistics, where);
    }
  }
  EXPECT_GT(by_level[0], 200);
  EXPECT_GT(by_level[1], 100);
  EXPECT_GT(by_level[2], 50);
  EXPECT_GT(stored_in_all, 100);
}

TEST(CallGraph, CallsThatShareAVariableStayInOnePiece) {
  const RandomGraph graph(3);
  const auto opened = KerasArchive::FromBytes(graph.archive().Bytes(), "net.keras");
  const auto model = Model::Load(**opened, {});
  ASSERT_TRUE(model.ok()) << model.status();
  const CallGraph& calls = (*model)->call_graph();
  int first = -1, last = -1;
  for (int i = 0; i < static_cast<int>(calls.calls.size()); ++i) {
    for (int j = i + 1; j < static_cast<int>(calls.calls.size()); ++j) {
      const auto& a = calls.calls[static_cast<size_t>(i)].layers;
      if (!a.empty() && a == calls.calls[static_cast<size_t>(j)].layers) first = i, last = j;
    }
  }
  ASSERT_GE(first, 0);
  for (int cut = first + 1; cut <= last; ++cut) EXPECT_FALSE(calls.MayCut(cut)) << cut;
  EXPECT_TRUE(calls.MayCut(first));
  EXPECT_FALSE(calls.MayRecompute({{first, first + 1, {}}}));
  const int all = static_cast<int>(calls.calls.size());
  EXPECT_FALSE(calls.MayRecompute({{first, all, {}}})) << "the last call is in no segment";
  EXPECT_TRUE(calls.MayRecompute({{0, all - 1, {}}}));
  EXPECT_TRUE(calls.MayRecompute({{0, all - 1, {}, {{0, first, {}}}}}));
  EXPECT_FALSE(calls.MayRecompute({{0, all - 1, {}, {{0, first + 1, {}}}}})) << "what is within is cut like all others";
  EXPECT_FALSE(calls.MayRecompute({{0, first, {}, {{0, all - 1, {}}}}})) << "what is within is no more than what it is in";
  for (int call = 0; call < all; ++call) {
    const bool may = calls.MayStore({0, all - 1, {}}, call);
    EXPECT_EQ(calls.MayRecompute({{0, all - 1, {call}}}), may) << call;
    EXPECT_LE(may, calls.calls[static_cast<size_t>(call)].takes_output) << call;
  }
}

}  // namespace
}  // namespace lockstep
