#include "model/training/compile_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr OutputShape kTen{10, 2, 10};

Json Compiled(const Json& optimizer, const Json& loss, const Json& metrics) {
  return {{"optimizer", optimizer},      {"loss", loss},         {"loss_weights", nullptr},  {"metrics", metrics},
          {"weighted_metrics", nullptr}, {"run_eagerly", false}, {"steps_per_execution", 1}, {"jit_compile", false}};
}

Json Object(const std::string& module, const std::string& name, const Json& config) {
  return {{"module", module}, {"class_name", name}, {"config", config}, {"registered_name", nullptr}};
}

const Json& Sparse() {
  static const Json& loss = *new Json("sparse_categorical_crossentropy");
  return loss;
}

// The problems, a line each.
std::vector<std::string> Problems(const Json& config, const RecipeOverrides& overrides = {}, const OutputShape& output = kTen) {
  const absl::StatusOr<Recipe> recipe = ReadRecipe(config, overrides, output);
  if (recipe.ok()) return {};
  EXPECT_EQ(recipe.status().code(), absl::StatusCode::kInvalidArgument);
  return absl::StrSplit(std::string(recipe.status().message()), '\n');
}

std::vector<std::string> Names(const Recipe& recipe) {
  std::vector<std::string> names;
  for (const MetricConfig& metric : recipe.metrics) names.push_back(metric.name);
  return names;
}

TEST(Recipe, IsWhatCompileWasTold) {
  const Json adam =
      Object("keras.optimizers", "Adam", {{"name", "adam"}, {"learning_rate", 0.01}, {"beta_1", 0.8}, {"amsgrad", true}, {"clipnorm", 2}});
  Json config =
      Compiled(adam, Object("keras.losses", "CategoricalCrossentropy", {{"label_smoothing", 0.1}, {"reduction", "sum"}}), {"accuracy"});
  config["jit_compile"] = true;
  config["loss_weights"] = {2.0};
  const Recipe recipe = *ReadRecipe(config, {}, kTen);
  EXPECT_EQ(recipe.optimizer.kind, OptimizerKind::kAdam);
  EXPECT_EQ(recipe.optimizer.learning_rate.initial, 0.01);
  EXPECT_EQ(recipe.optimizer.beta_1, 0.8);
  EXPECT_EQ(recipe.optimizer.beta_2, 0.999);
  EXPECT_TRUE(recipe.optimizer.amsgrad);
  EXPECT_EQ(recipe.optimizer.clipnorm, 2);
  EXPECT_EQ(recipe.loss.kind, CrossentropyKind::kCategorical);
  EXPECT_EQ(recipe.loss.label_smoothing, 0.1);
  EXPECT_EQ(recipe.loss.reduction, LossConfig::Reduction::kSum);
  EXPECT_EQ(recipe.loss.weight, 2);
  EXPECT_THAT(Names(recipe), ElementsAre("accuracy"));
  EXPECT_TRUE(recipe.jit_compile);
  EXPECT_TRUE(recipe.continues_optimizer);
  EXPECT_TRUE(recipe.compile_config.is_null());
}

TEST(Recipe, EveryProblemAtOnceByNameAndPlace) {
  Json config = Compiled(Object("keras.optimizers", "Adam", {{"learning_rat", 0.1}, {"ema_momentum", "high"}}),
                         "sparse_categorial_crossentropy", {"accurcy", Object("mine", "Sharpness", Json::object())});
  config["steps"] = 3;
  const std::vector<std::string> problems = Problems(config);
  ASSERT_EQ(problems.size(), 6) << absl::StrJoin(problems, "\n");
  EXPECT_THAT(problems[0], HasSubstr("compile.optimizer.ema_momentum: \"high\" is not a finite number"));
  EXPECT_THAT(problems[1], HasSubstr("compile.optimizer: option \"learning_rat\" is not known; did you mean \"learning_rate\"?"));
  EXPECT_THAT(problems[2], HasSubstr("did you mean \"sparse_categorical_crossentropy\"? Known: crossentropy, sparse_"));
  EXPECT_THAT(problems[3], HasSubstr("compile.metrics[0]: metric \"accurcy\" is not known; did you mean \"accuracy\"?"));
  EXPECT_THAT(problems[4], HasSubstr("compile.metrics[1]: \"Sharpness\" of \"mine\" is not Keras's own"));
  EXPECT_THAT(problems[5], HasSubstr("compile: option \"steps\" is not known"));
}

TEST(Recipe, UnknownOptimizersAreRefusedWithTheKnown) {
  const auto problems = Problems(Compiled("ftrl", Sparse(), nullptr));
  ASSERT_EQ(problems.size(), 1);
  EXPECT_THAT(problems[0], HasSubstr("compile.optimizer: optimizer \"ftrl\" is not known"));
  EXPECT_THAT(problems[0], HasSubstr("Known: sgd, rmsprop, adam, adamw, nadam"));
  EXPECT_THAT(Problems(Compiled("adm", Sparse(), nullptr))[0], HasSubstr("did you mean \"adam\"?"));
}

TEST(Recipe, JobsWordWinsAndStandsInTheTrainedArchive) {
  RecipeOverrides overrides;
  overrides.optimizer = R"({"module": "keras.optimizers", "class_name": "SGD", "config": {"momentum": 0.5}})";
  overrides.learning_rate = 0.25;
  overrides.loss = "crossentropy";
  overrides.metrics = {"acc", "sparse_top_k_categorical_accuracy"};
  const Recipe recipe = *ReadRecipe(Compiled("adam", "categorical_crossentropy", {"accuracy"}), overrides, kTen);
  EXPECT_EQ(recipe.optimizer.kind, OptimizerKind::kSgd);
  EXPECT_EQ(recipe.optimizer.momentum, 0.5);
  EXPECT_EQ(recipe.optimizer.learning_rate.initial, 0.25);
  EXPECT_EQ(recipe.loss.kind, CrossentropyKind::kSparseCategorical);
  EXPECT_THAT(Names(recipe), ElementsAre("acc", "sparse_top_k_categorical_accuracy"));
  EXPECT_FALSE(recipe.continues_optimizer);
  EXPECT_EQ(recipe.compile_config["optimizer"]["config"]["learning_rate"], 0.25);
  EXPECT_EQ(recipe.compile_config["loss"], "crossentropy");
  EXPECT_THAT(recipe.notes, ElementsAre(HasSubstr("optimizer: the job's replaces the file's")));
}

TEST(Recipe, LearningRateAloneContinuesTheOptimizer) {
  RecipeOverrides overrides;
  overrides.learning_rate = 0.5;
  const Json schedule = Object("keras.optimizers.schedules", "CosineDecay", {{"initial_learning_rate", 0.1}, {"decay_steps", 10}});
  const Recipe recipe =
      *ReadRecipe(Compiled(Object("keras.optimizers", "SGD", {{"learning_rate", schedule}}), Sparse(), nullptr), overrides, kTen);
  EXPECT_TRUE(recipe.continues_optimizer);
  EXPECT_TRUE(recipe.optimizer.learning_rate.settable());
  EXPECT_EQ(recipe.optimizer.learning_rate.initial, 0.5);
}

TEST(Recipe, ModelThatWasNeverCompiledNeedsTheJobsWord) {
  const auto problems = Problems(Json());
  ASSERT_EQ(problems.size(), 2);
  EXPECT_THAT(problems[0], HasSubstr("optimizer: the file says none"));
  EXPECT_THAT(problems[1], HasSubstr("loss: the file says none"));
  EXPECT_THAT(Problems(Json(), {"adam", std::nullopt, "crossentropy", {}}), IsEmpty());
}

TEST(Recipe, OutputMustFitTheClasses) {
  const auto misfit = [](const char* loss, const OutputShape& output) {
    const auto problems = Problems(Compiled("adam", loss, nullptr), {}, output);
    return problems.empty() ? std::string() : problems[0];
  };
  EXPECT_THAT(misfit("sparse_categorical_crossentropy", {7, 2, 10}), HasSubstr("the model has 7 outputs, and the data 10 classes"));
  EXPECT_THAT(misfit("categorical_crossentropy", {12, 2, 10}), HasSubstr("12 outputs"));
  EXPECT_THAT(misfit("binary_crossentropy", {1, 2, 10}), HasSubstr("1 output, which tells 2 classes apart"));
  EXPECT_THAT(misfit("sparse_categorical_crossentropy", {1, 2, 2}), HasSubstr("use binary_crossentropy"));
  EXPECT_THAT(misfit("sparse_categorical_crossentropy", {10, 4, 10}), HasSubstr("4 axes"));
  EXPECT_EQ(misfit("binary_crossentropy", {1, 2, 2}), "");
  EXPECT_EQ(misfit("binary_crossentropy", {10, 2, 10}), "");
  EXPECT_EQ(misfit("crossentropy", {1, 2, 2}), "");
  EXPECT_EQ(misfit("ce", {10, 2, 10}), "");
}

TEST(Recipe, AccuracyIsResolvedByTheOutput) {
  const auto kind = [](const char* loss, const OutputShape& output) {
    return ReadRecipe(Compiled("adam", loss, {"accuracy"}), {}, output)->metrics[0].kind;
  };
  EXPECT_EQ(kind("binary_crossentropy", {1, 2, 2}), MetricConfig::Kind::kBinaryAccuracy);
  EXPECT_EQ(kind("sparse_categorical_crossentropy", kTen), MetricConfig::Kind::kCategoricalAccuracy);
}

TEST(Recipe, MetricsAreNamedAsKerasPrintsThem) {
  Json config = Compiled(
      "adam", Sparse(),
      {{"accuracy",
        "acc",
        "accuracy",
        "SparseCategoricalAccuracy",
        Object("keras.metrics", "SparseTopKCategoricalAccuracy", {{"name", "top3"}, {"dtype", "float32"}, {"k", 3}}),
        {{"module", "builtins"}, {"class_name", "function"}, {"config", "sparse_categorical_accuracy"}, {"registered_name", "function"}}}});
  config["weighted_metrics"] = {"accuracy", "sparse_categorical_crossentropy"};
  const Recipe recipe = *ReadRecipe(config, {}, kTen);
  EXPECT_THAT(Names(recipe), ElementsAre("accuracy", "acc", "accuracy_1", "SparseCategoricalAccuracy", "top3",
                                         "sparse_categorical_accuracy", "weighted_accuracy", "sparse_categorical_crossentropy"));
  EXPECT_EQ(recipe.metrics[4].k, 3);
  const auto watched = MonitoredMetrics(recipe);
  EXPECT_EQ(watched.front().direction, Direction::kDown);
  EXPECT_EQ(watched[1].direction, Direction::kUp);
  EXPECT_EQ(watched.back().direction, Direction::kDown);
}

TEST(Recipe, OptionsThatKerasRefusesAreRefused) {
  const auto problem = [](const Json& options) {
    const auto problems = Problems(Compiled(Object("keras.optimizers", "SGD", options), Sparse(), nullptr));
    return problems.empty() ? std::string() : problems[0];
  };
  EXPECT_THAT(problem({{"clipnorm", 1}, {"clipvalue", 1}}), HasSubstr("only one of"));
  EXPECT_THAT(problem({{"momentum", 1.5}}), HasSubstr("compile.optimizer.momentum: 1.5 is not between 0 and 1"));
  EXPECT_THAT(problem({{"gradient_accumulation_steps", 1}}), HasSubstr("at least 2"));
  EXPECT_THAT(problem({{"use_ema", true}, {"ema_momentum", 2}}), HasSubstr("ema_momentum"));
  EXPECT_THAT(problem({{"learning_rate", -1}}), HasSubstr("learning_rate: must be a finite number"));
  EXPECT_THAT(problem({{"learning_rate", Object("keras.optimizers.schedules", "CosineDecy", Json::object())}}),
              HasSubstr("\"CosineDecay\"?"));
  EXPECT_THAT(problem({{"learning_rate",
                        Object("keras.optimizers.schedules", "PiecewiseConstantDecay", {{"boundaries", {1, 2}}, {"values", {1, 2}}})}}),
              HasSubstr("2 values for 2 boundaries"));
  EXPECT_THAT(problem({{"rho", 0.9}}), HasSubstr("option \"rho\" is not known"));
}

TEST(Recipe, NothingInAHostileConfigurationThrows) {
  for (const char* text :
       {"3", "[]", R"({"optimizer": [[[]]]})", R"({"optimizer": {"class_name": 3}})",
        R"({"optimizer": {"class_name": "Adam", "config": 7}})", R"({"loss": {}, "optimizer": "adam"})",
        R"({"loss": [], "optimizer": 1e400})", R"({"metrics": {"a": {"b": {}}}})",
        R"({"optimizer": {"class_name": "function", "config": {}}})", R"({"loss_weights": {"a": [[]]}, "jit_compile": []})"}) {
    const Json config = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    EXPECT_THAT(Problems(config), Not(IsEmpty())) << text;
  }
  EXPECT_THAT(Problems(Json(), {"{broken", std::nullopt, "crossentropy", {}})[0], HasSubstr("optimizer: not valid JSON"));
}

}  // namespace
}  // namespace lockstep
