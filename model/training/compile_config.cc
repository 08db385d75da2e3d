#include "model/training/compile_config.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep {
namespace {

const Json& Member(const Json& object, const char* key) {
  static const Json& null = *new Json();
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

class RecipeReader {
 public:
  RecipeReader(const Json& compile_config, const RecipeOverrides& overrides, const OutputShape& output)
      : file_(compile_config), overrides_(overrides), output_(output) {}

  absl::StatusOr<Recipe> Read() {
    ReadOptimizerAndRate();
    ReadTheLoss();
    ReadMetrics();
    ReadRest();
    if (!problems_.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems_, "\n"));
    return std::move(recipe_);
  }

 private:
  // The job's value of a field where it has one, else the file's.
  struct Source {
    Json value;
    std::string where;
  };
  Source Choose(const char* field, const std::string& overriding) {
    if (overriding.empty()) return {Member(file_, field), absl::StrCat("compile.", field)};
    auto parsed = ParseOverride(overriding, field, problems_);
    if (!parsed) return {Json(), ""};
    Changed()[field] = *parsed;
    return {std::move(*parsed), field};
  }

  // The trained archive's compile_config: the file's, or what compile() has by default.
  Json& Changed() {
    Json& config = recipe_.compile_config;
    if (config.is_null()) config = file_;
    if (config.is_null()) {
      config = {{"optimizer", "rmsprop"},      {"loss", nullptr},      {"loss_weights", nullptr},  {"metrics", nullptr},
                {"weighted_metrics", nullptr}, {"run_eagerly", false}, {"steps_per_execution", 1}, {"jit_compile", false}};
    }
    return config;
  }

  void RequireGiven(const Source& source, const char* field, const char* example) {
    if (!source.value.is_null() || source.where.empty()) return;
    problems_.push_back(
        absl::StrCat(field, ": the file says none (the model was saved without compile()), so the job must: ", field, ": ", example));
  }

  void ReadOptimizerAndRate() {
    Source source = Choose("optimizer", overrides_.optimizer);
    recipe_.continues_optimizer = overrides_.optimizer.empty();
    if (source.value.is_null()) return RequireGiven(source, "optimizer", "adam");
    recipe_.optimizer = ReadOptimizer(source.value, source.where, problems_);
    if (!overrides_.learning_rate) return;
    recipe_.overrides_learning_rate = true;
    recipe_.optimizer.learning_rate = ReadLearningRate(Json(*overrides_.learning_rate), "learning_rate", problems_);
    if (source.value.is_string()) {
      source.value = {
          {"module", "keras.optimizers"}, {"class_name", source.value}, {"config", Json::object()}, {"registered_name", nullptr}};
    }
    source.value["config"]["learning_rate"] = *overrides_.learning_rate;
    Changed()["optimizer"] = std::move(source.value);
  }

  void ReadTheLoss() {
    const Source source = Choose("loss", overrides_.loss);
    if (source.value.is_null()) return RequireGiven(source, "loss", "sparse_categorical_crossentropy");
    recipe_.loss = ReadLoss(source.value, source.where, output_, problems_);
    const Json* weight = &Member(file_, "loss_weights");
    while (weight->is_structured() && weight->size() == 1) weight = &*weight->begin();
    if (weight->is_null() || !overrides_.loss.empty()) return;
    if (weight->is_number()) {
      recipe_.loss.weight = weight->get<double>();
    } else {
      problems_.push_back("compile.loss_weights: one number is needed for the one output");
    }
  }

  void ReadMetrics() {
    if (!overrides_.metrics.empty()) {
      Json metrics = Json::array();
      for (size_t i = 0; i < overrides_.metrics.size(); ++i) {
        const std::string where = absl::StrCat("metrics[", i, "]");
        const auto parsed = ParseOverride(overrides_.metrics[i], where, problems_);
        if (!parsed) continue;
        AddMetrics(*parsed, where, /*weighted=*/false);
        metrics.push_back(*parsed);
      }
      Changed()["metrics"] = std::move(metrics);
      Changed()["weighted_metrics"] = nullptr;
      return;
    }
    AddMetrics(Member(file_, "metrics"), "compile.metrics", /*weighted=*/false);
    // Samples have no weights here, so that these are metrics like the others.
    AddMetrics(Member(file_, "weighted_metrics"), "compile.weighted_metrics", /*weighted=*/true);
  }

  // Lists and dictionaries of lists, for the one output.
  void AddMetrics(const Json& value, const std::string& where, bool weighted) {
    if (value.is_null()) return;
    if (value.is_array() || (value.is_object() && !value.contains("class_name"))) {
      size_t i = 0;
      for (const Json& item : value) AddMetrics(item, absl::StrCat(where, "[", i++, "]"), weighted);
      return;
    }
    auto metric = ReadMetric(value, where, recipe_.loss, output_, problems_);
    if (!metric) return;
    metric->name = Unique(metric->name, weighted);
    recipe_.metrics.push_back(std::move(*metric));
  }

  // Keras's CompileMetrics.result(): "accuracy", "accuracy_1"; among weighted ones "weighted_accuracy".
  std::string Unique(const std::string& name, bool weighted) {
    int& seen = names_[name];
    if (seen++ == 0) return name;
    if (!weighted) return absl::StrCat(name, "_", seen - 1);
    --seen;
    const std::string prefixed = absl::StrCat("weighted_", name);
    int& again = names_[prefixed];
    return again++ == 0 ? prefixed : absl::StrCat(prefixed, "_", again - 1);
  }

  void ReadRest() {
    ConfigFields fields(file_, "compile", problems_);
    // Read above; how Python would run a step; and the scaling of a precision that is refused elsewhere.
    for (const char* key : {"optimizer", "loss", "loss_weights", "metrics", "weighted_metrics", "run_eagerly", "auto_scale_loss"}) {
      fields.Skip(key);
    }
    const Json jit = fields.Raw("jit_compile");
    recipe_.jit_compile = jit.is_boolean() && jit.get<bool>();
    if (fields.Int("steps_per_execution", 1) > 1) {
      recipe_.notes.emplace_back("steps_per_execution: every step is its own execution; the numbers are the same");
    }
    fields.RefuseUnread();
    if (!recipe_.continues_optimizer && !Member(file_, "optimizer").is_null()) {
      recipe_.notes.emplace_back("optimizer: the job's replaces the file's, and starts without its state");
    }
  }

  const Json& file_;
  const RecipeOverrides& overrides_;
  const OutputShape& output_;
  Recipe recipe_;
  Problems problems_;
  std::map<std::string, int> names_;
};

}  // namespace

absl::StatusOr<Recipe> ReadRecipe(const Json& compile_config, const RecipeOverrides& overrides, const OutputShape& output) {
  return RecipeReader(compile_config, overrides, output).Read();
}

std::vector<MonitoredMetric> MonitoredMetrics(const Recipe& recipe) {
  std::vector<MonitoredMetric> metrics = {{"loss", Direction::kDown}};
  for (const MetricConfig& metric : recipe.metrics) {
    metrics.push_back({metric.name, metric.kind == MetricConfig::Kind::kCrossentropy ? Direction::kDown : Direction::kUp});
  }
  return metrics;
}

}  // namespace lockstep
