#include "model/model.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "model/layer.h"
#include "model/test_archive.h"

namespace lockstep {
namespace {

using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;
using Layers = std::vector<std::pair<std::string, Json>>;

const Json kPicture = {nullptr, 4, 4, 1};

std::string Refusal(const TestArchive& archive) {
  const auto opened = KerasArchive::FromBytes(archive.Bytes(), "net.keras");
  EXPECT_TRUE(opened.ok()) << opened.status();
  const auto model = Model::Load(**opened, {});
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << model.status();
  return std::string(model.status().message());
}

// A model with its archive's values, in float64.
struct Loaded {
  std::unique_ptr<Model> model;
  std::vector<at::Tensor> variables;

  explicit Loaded(const TestArchive& archive) {
    const auto opened = KerasArchive::FromBytes(archive.Bytes(), "net.keras");
    EXPECT_TRUE(opened.ok()) << opened.status();
    Model::Options options;
    options.dtype = at::kDouble;
    auto made = Model::Load(**opened, options);
    EXPECT_TRUE(made.ok()) << made.status();
    model = std::move(*made);
    for (size_t i = 0; i < model->variables().size(); ++i) {
      variables.push_back(*model->InitialValue(**opened, static_cast<int>(i)));
      if (model->variables()[i].trainable) variables.back().set_requires_grad(true);
    }
  }
  at::Tensor Run(const at::Tensor& images, ForwardContext& context) const { return model->Forward(images, variables, context); }
  at::Tensor Run(const at::Tensor& images) const {
    ForwardContext context;
    return Run(images, context);
  }
};

at::Tensor Count(at::IntArrayRef shape) {  // 1, 2, 3 …
  int64_t elements = 1;
  for (const int64_t extent : shape) elements *= extent;
  return at::arange(1, elements + 1, at::TensorOptions().dtype(at::kDouble)).view(shape);
}

std::vector<double> Values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().contiguous().view(-1);
  return {flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel()};
}

Json Node(const std::vector<std::string>& from, int node = 0) {
  Json tensors = Json::array();
  for (const std::string& layer : from) {
    tensors.push_back({{"class_name", "__keras_tensor__"}, {"config", {{"keras_history", {layer, node, 0}}}}});
  }
  return {{"args", {tensors}}, {"kwargs", Json::object()}};
}

const char* const kScaleModule = "keras.src.applications.inception_resnet_v2";

// A CustomScaleLayer as Keras writes it, called "scaled", of pictures of kPicture's size that were reshaped to `shapes`.
TestArchive Scaled(Json config, const std::vector<Shape>& shapes) {
  Json layers = {{{"class_name", "InputLayer"}, {"config", {{"name", "in"}, {"batch_shape", kPicture}}}}};
  std::vector<std::string> from;
  for (const Shape& shape : shapes) {
    const std::string name = from.emplace_back(absl::StrCat("reshape_", from.size()));
    layers.push_back({{"class_name", "Reshape"},
                      {"config", {{"name", name}, {"target_shape", Shape(shape.begin() + 1, shape.end())}}},
                      {"inbound_nodes", {Node({"in"})}}});
  }
  config["name"] = "scaled";
  layers.push_back({{"module", kScaleModule},
                    {"class_name", "CustomScaleLayer"},
                    {"config", config},
                    {"registered_name", "CustomScaleLayer"},
                    {"inbound_nodes", {Node(from)}}});
  TestArchive archive;
  archive.config = {
      {"class_name", "Functional"},
      {"config", {{"name", "m"}, {"layers", layers}, {"input_layers", {{"in", 0, 0}}}, {"output_layers", {{"scaled", 0, 0}}}}}};
  return archive;
}

TEST(ModelRefuses, UnknownLayersByNameAndPlaceWithThoseItKnowsOnce) {
  const Json inner = {{"name", "backbone"},
                      {"layers",
                       {{{"class_name", "InputLayer"}, {"config", {{"name", "in"}, {"batch_shape", {nullptr, 4, 4, 1}}}}},
                        {{"class_name", "Wavelet"}, {"config", {{"name", "w"}}}}}}};
  const std::string text = Refusal(TestArchive::Sequential(kPicture, {{"Sequential", inner}, {"Fourier", {{"name", "f"}}}}));
  EXPECT_THAT(text, AllOf(HasSubstr("backbone/w (Wavelet)"), HasSubstr("f (Fourier)"), HasSubstr("DepthwiseConv2D")));
  EXPECT_EQ(text.find("DepthwiseConv2D"), text.rfind("DepthwiseConv2D"));
}

TEST(ModelRefuses, ALayerThatIsNotKerassOwnThoughItsNameIs) {
  const auto refusal = [](const char* class_name, const Json& module, const Json& registered) {
    TestArchive archive = TestArchive::Sequential({nullptr, 2}, {{class_name, {{"name", "l"}}}});
    archive.config["config"]["layers"][1]["module"] = module;
    archive.config["config"]["layers"][1]["registered_name"] = registered;
    return Refusal(archive);
  };
  const auto own = [](const std::string& module) {
    return HasSubstr(absl::StrCat("this layer of \"", module, "\" is not Keras's own: its code is not in the file"));
  };
  EXPECT_THAT(refusal("CustomScaleLayer", "my.layers", "CustomScaleLayer"),
              AllOf(HasSubstr("layer l (CustomScaleLayer)"), own("my.layers")));
  EXPECT_THAT(refusal("CustomScaleLayer", kScaleModule, "mine>CustomScaleLayer"), own(kScaleModule));
  EXPECT_THAT(refusal("CustomScaleLayer", "keras_hub.layers", "CustomScaleLayer"), own("keras_hub.layers"));
  EXPECT_THAT(refusal("CustomScaleLayer", "keras.layers", nullptr),
              AllOf(HasSubstr("is not known"), HasSubstr(absl::StrCat(kScaleModule, ".CustomScaleLayer"))));
  EXPECT_THAT(refusal("ReLU", "__main__", "mine>ReLU"), own("__main__"));
}

TEST(ModelRefuses, CustomScaleLayersWithoutAScaleOrWithInputsThatDoNotJoin) {
  const Shape picture = {-1, 4, 4, 1};
  EXPECT_THAT(Refusal(Scaled({{"scale", "0.1"}}, {picture, picture})),
              HasSubstr("scaled (CustomScaleLayer): option scale must be a number"));
  EXPECT_THAT(Refusal(Scaled(Json::object(), {picture, picture})), HasSubstr("option scale must be a number"));
  EXPECT_THAT(Refusal(Scaled({{"scale", true}}, {picture, picture})), HasSubstr("option scale must be a number, not true"));
  EXPECT_THAT(Refusal(Scaled({{"scale", -1e39}}, {picture, picture})),
              HasSubstr("option scale must be a number that is finite in float32"));
  EXPECT_THAT(Refusal(Scaled({{"scale", 1}, {"bias", 1}}, {picture, picture})), HasSubstr("option bias (1) is not known"));
  EXPECT_THAT(Refusal(Scaled({{"scale", 1}}, {picture})), HasSubstr("scaled: takes 2 input(s), but is given 1"));
  EXPECT_THAT(Refusal(Scaled({{"scale", 1}}, {picture, picture, picture})), HasSubstr("scaled: takes 2 input(s), but is given 3"));
  EXPECT_THAT(Refusal(Scaled({{"scale", 1}}, {picture, {-1, 4, 2, 2}})),
              HasSubstr("scaled: cannot join inputs of shapes (None, 4, 4, 1) and (None, 4, 2, 2)"));
  EXPECT_THAT(Refusal(Scaled({{"scale", 1}}, {picture, {-1, 16}})),
              HasSubstr("scaled: cannot join inputs of different ranks, of shapes (None, 4, 4, 1) and (None, 16)"));
}

TEST(ModelRefuses, EveryProblemAtOnce) {
  const std::string text =
      Refusal(TestArchive::Sequential(kPicture, {{"Conv2D", {{"name", "c"}, {"filters", 2}, {"kernel_size", 3}, {"padding", "causal"}}},
                                                 {"ReLU", {{"name", "r"}, {"wobble", 3}}},
                                                 {"Activation", {{"name", "a"}, {"activation", "sine"}}},
                                                 {"MaxPooling2D", {{"name", "p"}, {"data_format", "channels_first"}}}}));
  EXPECT_THAT(text, AllOf(HasSubstr("c (Conv2D): option padding"), HasSubstr("r (ReLU): option wobble"),
                          HasSubstr("a (Activation): option activation"), HasSubstr("p (MaxPooling2D): option data_format")));
}

TEST(ModelRefuses, ShapesThatDoNotFitByTheLayersName) {
  EXPECT_THAT(Refusal(TestArchive::Sequential(kPicture, {{"Conv2D", {{"name", "wide"}, {"filters", 2}, {"kernel_size", 9}}}})),
              AllOf(HasSubstr("wide"), HasSubstr("larger than its input (None, 4, 4, 1)")));
}

TEST(ModelRefuses, WeightsThatAreMissingOrOfAnotherShape) {
  TestArchive archive = TestArchive::Sequential({nullptr, 2}, {{"Dense", {{"name", "d"}, {"units", 3}}}});
  archive.Filled("layers/dense/vars/0", {3, 2}, 1);
  EXPECT_THAT(Refusal(archive), AllOf(HasSubstr("d/kernel"), HasSubstr("(3, 2)"), HasSubstr("(2, 3)"), HasSubstr("d/bias"),
                                      HasSubstr("layers/dense/vars/1")));
}

TEST(ModelRefuses, ConfigurationsOfAnotherKindThanKerasWrites) {
  for (const Json& config :
       {Json({{"class_name", "Sequential"}}), Json({{"class_name", 7}, {"config", {}}}),
        Json({{"class_name", "Functional"}, {"config", {{"layers", {1, "x", nullptr}}}}}),
        Json({{"class_name", "MyModel"}, {"config", {{"layers", Json::array()}}}}),
        Json({{"class_name", "Functional"}, {"config", {{"layers", {{{"class_name", "ReLU"}, {"name", 3}, {"config", {}}}}}}}})}) {
    TestArchive archive;
    archive.config = config;
    EXPECT_FALSE(Refusal(archive).empty());
  }
}

TEST(ModelRefuses, CyclesAndGraphsThatMultiply) {
  TestArchive cycle;
  const Json input = {{"class_name", "InputLayer"},
                      {"name", "in"},
                      {"config", {{"name", "in"}, {"batch_shape", {nullptr, 4}}}},
                      {"inbound_nodes", Json::array()}};
  const auto relu = [](const std::string& name, const std::string& from) {
    return Json{{"class_name", "ReLU"}, {"name", name}, {"config", {{"name", name}}}, {"inbound_nodes", {Node({from})}}};
  };
  cycle.config = {{"class_name", "Functional"},
                  {"config",
                   {{"name", "m"},
                    {"layers", {input, relu("a", "b"), relu("b", "a")}},
                    {"input_layers", {{"in", 0, 0}}},
                    {"output_layers", {{"b", 0, 0}}}}}};
  EXPECT_THAT(Refusal(cycle), HasSubstr("cycle"));
  // 40 models within each other, each of which calls the next one twice.
  Json model = relu("r", "in");
  for (int depth = 0; depth < 40; ++depth) {
    const std::string inner = model["name"];
    Json twice = model;
    twice["inbound_nodes"] = {Node({"in"}), Node({inner}, 0)};
    const std::string name = absl::StrCat("m", depth);
    model = {
        {"class_name", "Functional"},
        {"name", name},
        {"config", {{"name", name}, {"layers", {input, twice}}, {"input_layers", {{"in", 0, 0}}}, {"output_layers", {{inner, 1, 0}}}}}};
  }
  TestArchive bomb;
  bomb.config = model;
  EXPECT_THAT(Refusal(bomb), HasSubstr("more than 100000 calls"));
}

TEST(Model, SaysWhatItIs) {
  TestArchive archive = TestArchive::Sequential(
      {nullptr, 4, 4, 3}, {{"Rescaling", {{"scale", 0.5}, {"offset", 0.0}}},
                           {"BatchNormalization", {{"name", "norm"}, {"momentum", 0.9}}},
                           {"GlobalAveragePooling2D", Json::object()},
                           {"Dense", {{"name", "top"}, {"units", 2}, {"trainable", false}, {"activation", "softmax"}}}});
  for (int i = 0; i < 4; ++i) archive.Filled(absl::StrCat("layers/batch_normalization/vars/", i), {3}, 1);
  archive.Filled("layers/dense/vars/0", {3, 2}, 1).Filled("layers/dense/vars/1", {2}, 0);
  const Loaded loaded(archive);
  EXPECT_TRUE(loaded.model->rescales_input());
  EXPECT_EQ(loaded.model->output_activation(), Model::OutputActivation::kSoftmax);
  EXPECT_THAT(loaded.model->input_shape(), ElementsAre(4, 4, 3));
  EXPECT_THAT(loaded.model->output_shape(), ElementsAre(2));
  std::vector<std::string> paths;
  std::vector<bool> trainable;
  for (const VariableInfo& variable : loaded.model->variables()) paths.push_back(variable.path), trainable.push_back(variable.trainable);
  EXPECT_THAT(paths, ElementsAre("norm/gamma", "norm/beta", "norm/moving_mean", "norm/moving_variance", "top/kernel", "top/bias"));
  EXPECT_THAT(trainable, ElementsAre(true, true, false, false, false, false));
  ASSERT_EQ(loaded.model->statistic_sites().size(), 2);
  EXPECT_EQ(loaded.model->statistic_sites()[1].variable, 3);
  EXPECT_EQ(loaded.model->statistic_sites()[1].momentum, 0.9);
}

// 1 2 3 4 / 5 6 7 8 / … with a kernel of ones: the odd row and column of zeros come after the picture.
TEST(Layers, SamePaddingOfAStridedConvolutionIsUneven) {
  TestArchive archive = TestArchive::Sequential(
      kPicture, {{"Conv2D", {{"filters", 1}, {"kernel_size", 3}, {"strides", 2}, {"padding", "same"}, {"use_bias", false}}}});
  archive.Filled("layers/conv2d/vars/0", {3, 3, 1, 1}, 1);
  EXPECT_THAT(Values(Loaded(archive).Run(Count({1, 4, 4, 1}))), ElementsAre(54, 45, 72, 54));
}

TEST(Layers, BatchNormalizationUsesTheBiasedVarianceAndLeavesStatistics) {
  TestArchive archive = TestArchive::Sequential({nullptr, 1}, {{"BatchNormalization", {{"epsilon", 0.0}}}, {"ReLU", Json::object()}});
  archive.Filled("layers/batch_normalization/vars/0", {1}, 2).Filled("layers/batch_normalization/vars/1", {1}, 1);
  archive.Filled("layers/batch_normalization/vars/2", {1}, 0).Filled("layers/batch_normalization/vars/3", {1}, 4);
  const Loaded loaded(archive);
  ForwardContext context;
  context.training = true;
  const at::Tensor x = Count({4, 1}) * 2;  // 2 4 6 8: mean 5, biased variance 5
  const std::vector<double> y = Values(loaded.Run(x, context));
  EXPECT_NEAR(y[3], 1 + 2 * 3 / std::sqrt(5.0), 1e-12);
  EXPECT_EQ(y[0], 0);  // 1 − 2 · 3 / √5 < 0
  ASSERT_EQ(context.statistics.size(), 2);
  EXPECT_THAT(Values(context.statistics[0].batch_value), ElementsAre(5));
  EXPECT_THAT(Values(context.statistics[1].batch_value), ElementsAre(5));
  EXPECT_THAT(Values(loaded.Run(x)), ElementsAre(3, 5, 7, 9));  // 1 + 2 x / √4
}

// (1 + e) + (1 + e) · (e − 1) with e = 2⁻³⁰: the product, e² − 1, is rounded to −1 before the sum.
TEST(Layers, CustomScaleLayersRoundTheProductBeforeTheSum) {
  const double e = std::ldexp(1, -30);
  const Loaded loaded(Scaled({{"scale", e - 1}}, {{-1, 4, 4, 1}, {-1, 4, 4, 1}}));
  const std::vector<double> y = Values(loaded.Run(at::full({1, 4, 4, 1}, 1 + e, at::TensorOptions().dtype(at::kDouble))));
  EXPECT_THAT(y, AllOf(SizeIs(16), Each(e)));
}

TEST(Layers, LogitsAreLeftForTheLoss) {
  TestArchive archive = TestArchive::Sequential({nullptr, 2}, {{"Dense", {{"units", 2}}}, {"Softmax", Json::object()}});
  archive.Array("layers/dense/vars/0", {2, 2}, {1, 0, 0, 1}).Filled("layers/dense/vars/1", {2}, 1);
  ForwardContext context;
  const Loaded loaded(archive);
  loaded.Run(Count({1, 2}), context);
  EXPECT_EQ(loaded.model->output_activation(), Model::OutputActivation::kSoftmax);
  EXPECT_THAT(Values(context.logits), ElementsAre(2, 3));
}

class RandomLayers : public testing::TestWithParam<std::pair<const char*, Json>> {
 protected:
  at::Tensor Draw(const at::Tensor& x, uint64_t seed, uint64_t step, int replica, int64_t first = 0) {
    ForwardContext context;
    context.training = true;
    context.seed = seed;
    context.step = step;
    context.virtual_replica = replica;
    context.first_sample = first;
    return loaded_.Run(x, context);
  }
  const Loaded loaded_{TestArchive::Sequential({nullptr, 5, 5, 7}, {{GetParam().first, GetParam().second}})};
};

TEST_P(RandomLayers, DependOnSeedStepReplicaAndSampleAndNothingElse) {
  const at::Tensor x = Count({8, 5, 5, 7});
  const at::Tensor whole = Draw(x, 1, 2, 3);
  EXPECT_TRUE(at::equal(whole, Draw(x, 1, 2, 3)));
  EXPECT_FALSE(at::equal(whole, Draw(x, 2, 2, 3)));
  EXPECT_FALSE(at::equal(whole, Draw(x, 1, 3, 3)));
  EXPECT_FALSE(at::equal(whole, Draw(x, 1, 2, 4)));
  const at::Tensor cut = at::cat({Draw(x.narrow(0, 0, 3), 1, 2, 3, 0), Draw(x.narrow(0, 3, 5), 1, 2, 3, 3)});
  EXPECT_TRUE(at::equal(whole, cut)) << "micro-batches draw as the whole slice does";
  EXPECT_TRUE(at::equal(x, loaded_.Run(x))) << "inference passes its input on";
}

TEST_P(RandomLayers, KeepTheMean) {
  const at::Tensor x = at::ones({1000, 5, 5, 7}, at::TensorOptions().dtype(at::kDouble));
  const double mean = Draw(x, 11, 0, 0).mean().item<double>();
  EXPECT_NEAR(mean, 1, std::string(GetParam().first) == "AlphaDropout" ? 0.5 : 0.06);
}

INSTANTIATE_TEST_SUITE_P(All, RandomLayers,
                         testing::Values(std::pair("Dropout", Json{{"rate", 0.3}}),
                                         std::pair("Dropout", Json{{"rate", 0.3}, {"noise_shape", {nullptr, 1, 1, 7}}}),
                                         std::pair("SpatialDropout2D", Json{{"rate", 0.25}}),
                                         std::pair("GaussianNoise", Json{{"stddev", 0.5}}),
                                         std::pair("GaussianDropout", Json{{"rate", 0.2}}), std::pair("AlphaDropout", Json{{"rate", 0.2}}),
                                         std::pair("StochasticDepth", Json{{"drop_path_rate", 0.3}})));

}  // namespace
}  // namespace lockstep
