#include "model/training/loss_config.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

using Crossentropy = CrossentropyKind;
using MetricKind = MetricConfig::Kind;

// Keras knows each by its class, its function, and some short names.
struct LossName {
  const char* names[4];
  Crossentropy kind;
};
constexpr LossName kLosses[] = {
    {{"sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"}, Crossentropy::kSparseCategorical},
    {{"categorical_crossentropy", "CategoricalCrossentropy"}, Crossentropy::kCategorical},
    {{"binary_crossentropy", "BinaryCrossentropy", "bce", "BCE"}, Crossentropy::kBinary},
};

struct MetricName {
  const char* name;
  const char* class_name;
  MetricKind kind;
};
constexpr MetricName kMetrics[] = {
    {"binary_accuracy", "BinaryAccuracy", MetricKind::kBinaryAccuracy},
    {"categorical_accuracy", "CategoricalAccuracy", MetricKind::kCategoricalAccuracy},
    {"sparse_categorical_accuracy", "SparseCategoricalAccuracy", MetricKind::kCategoricalAccuracy},
    {"top_k_categorical_accuracy", "TopKCategoricalAccuracy", MetricKind::kTopK},
    {"sparse_top_k_categorical_accuracy", "SparseTopKCategoricalAccuracy", MetricKind::kTopK},
};

std::optional<Crossentropy> FindLoss(const std::string& name) {
  for (const LossName& loss : kLosses) {
    for (const char* known : loss.names) {
      if (known != nullptr && name == known) return loss.kind;
    }
  }
  return std::nullopt;
}

std::vector<std::string> KnownLosses() {
  std::vector<std::string> names = {"crossentropy"};
  for (const LossName& loss : kLosses) names.emplace_back(loss.names[0]);
  return names;
}

std::vector<std::string> KnownMetrics() {
  std::vector<std::string> names = {"accuracy"};
  for (const MetricName& metric : kMetrics) names.emplace_back(metric.name);
  for (const LossName& loss : kLosses) names.emplace_back(loss.names[0]);
  return names;
}

// Empty if the loss can be computed for such an output.
std::string Misfit(Crossentropy kind, const OutputShape& output) {
  if (output.axes != 2) {
    return absl::StrCat("the model's output has ", output.axes,
                        " axes; classes need 2, (batch, units): end the model in global pooling or "
                        "Flatten, and Dense(",
                        output.classes, ")");
  }
  if (kind == Crossentropy::kBinary && output.units == 1) {
    if (output.classes == 2) return "";
    return absl::StrCat("the model has 1 output, which tells 2 classes apart, and the data has ", output.classes, ": end it in Dense(",
                        output.classes, ", activation=\"softmax\")");
  }
  if (output.units == 1) {
    return "the model has 1 output, and a categorical crossentropy needs one for each class: use binary_crossentropy for 2 classes, or "
           "end it in Dense(classes, activation=\"softmax\")";
  }
  if (output.units == output.classes) return "";
  return absl::StrCat("the model has ", output.units, " outputs, and the data ", output.classes, " classes: end it in Dense(",
                      output.classes, "), or give it ", output.units, " class folders");
}

// The options of a crossentropy, as loss and as metric.
void ReadCrossentropy(ConfigFields& fields, LossConfig& loss) {
  fields.Skip("name");
  fields.Only("axis", {-1, 1}, "the classes are on the last axis");
  loss.from_logits = fields.Flag("from_logits", false);
  if (loss.kind == Crossentropy::kSparseCategorical) {
    fields.Only("ignore_class", {}, "every picture has a class");
  } else {
    loss.label_smoothing = fields.Number("label_smoothing", 0);
    if (loss.label_smoothing < 0 || loss.label_smoothing > 1) fields.Problem("label_smoothing", "must be between 0 and 1");
  }
}

void ReadReduction(ConfigFields& fields, LossConfig& loss) {
  const std::vector<std::string> means = {"sum_over_batch_size", "mean", "mean_with_sample_weight", "auto"};
  const std::string reduction = fields.Text("reduction", means[0]);
  if (reduction == "sum") {
    loss.reduction = LossConfig::Reduction::kSum;
  } else if (reduction == "none") {
    fields.Problem("reduction", "\"none\" leaves a loss for each sample, and training needs one: use sum_over_batch_size or sum");
  } else if (std::find(means.begin(), means.end(), reduction) == means.end()) {
    fields.Problem("reduction", NotKnown(reduction, {"sum_over_batch_size", "sum"}));
  }
}

// The one entry of a list or dictionary of one, however nested.
const Json& Unwrapped(const Json& value) {
  const Json* inner = &value;
  while (inner->size() == 1 && (inner->is_array() || (inner->is_object() && !inner->contains("class_name")))) inner = &*inner->begin();
  return *inner;
}

// A crossentropy on one unit is binary, else sparse: the labels are class numbers.
Crossentropy ByShape(const OutputShape& output) { return output.units == 1 ? Crossentropy::kBinary : Crossentropy::kSparseCategorical; }

bool IsAccuracy(const KerasObject& object) {
  const std::string lower = absl::AsciiStrToLower(object.name);
  return object.named && (lower == "accuracy" || lower == "acc");
}

MetricKind ResolveAccuracy(const OutputShape& output) {
  return output.units == 1 ? MetricKind::kBinaryAccuracy : MetricKind::kCategoricalAccuracy;
}

// What a metric wants of the output beyond the loss. Empty if it is given.
std::string Misfit(const MetricConfig& metric, const LossConfig& loss, const OutputShape& output) {
  switch (metric.kind) {
    case MetricKind::kCrossentropy: return Misfit(metric.loss.kind, output);
    case MetricKind::kBinaryAccuracy:
      if (output.units == 1 || loss.kind != Crossentropy::kSparseCategorical) return "";
      return absl::StrCat("compares each of ", output.units,
                          " outputs with a label of its own, and the loss has one label a sample: use "
                          "sparse_categorical_accuracy");
    case MetricKind::kCategoricalAccuracy:
    case MetricKind::kTopK:
      return output.units == 1 ? "the model has 1 output, of which the largest is always the same: use binary_accuracy" : "";
  }
  return "";
}

void ReadMetricOptions(ConfigFields& fields, MetricConfig& metric) {
  fields.Skip("dtype");
  fields.Skip("name");
  switch (metric.kind) {
    case MetricKind::kBinaryAccuracy: metric.threshold = fields.Number("threshold", 0.5); break;
    case MetricKind::kTopK:
      metric.k = fields.Int("k", 5);
      fields.Only("from_sorted_ids", {false}, "the model puts out scores, not class numbers");
      if (metric.k < 1) fields.Problem("k", "must be at least 1");
      break;
    case MetricKind::kCrossentropy: ReadCrossentropy(fields, metric.loss); break;
    case MetricKind::kCategoricalAccuracy: break;
  }
  fields.RefuseUnread();
}

// True, with the kind set and Keras's default name in `metric`, for a metric that we know.
bool FindMetric(const std::string& name, MetricConfig& metric) {
  for (const MetricName& known : kMetrics) {
    if (name != known.name && name != known.class_name) continue;
    metric.kind = known.kind;
    metric.name = known.name;
    return true;
  }
  const auto crossentropy = FindLoss(name);
  if (!crossentropy) return false;
  metric.kind = MetricKind::kCrossentropy;
  metric.loss.kind = *crossentropy;
  metric.name = kLosses[static_cast<size_t>(*crossentropy)].names[0];
  return true;
}

}  // namespace

LossConfig ReadLoss(const Json& value, const std::string& where, const OutputShape& output, Problems& problems) {
  LossConfig loss;
  const auto object = ReadKerasObject(Unwrapped(value), where, problems);
  if (!object) return loss;
  const std::string lower = absl::AsciiStrToLower(object->name);
  const auto found = object->named && (lower == "crossentropy" || lower == "ce") ? ByShape(output) : FindLoss(object->name);
  if (!found) {
    problems.push_back(absl::StrCat(where, ": loss ", NotKnown(object->name, KnownLosses())));
    return loss;
  }
  loss.kind = *found;
  ConfigFields fields(object->config, where, problems);
  ReadCrossentropy(fields, loss);
  ReadReduction(fields, loss);
  fields.Skip("dtype");
  fields.RefuseUnread();
  if (const std::string misfit = Misfit(loss.kind, output); !misfit.empty()) problems.push_back(absl::StrCat(where, ": ", misfit));
  return loss;
}

std::optional<MetricConfig> ReadMetric(const Json& value, const std::string& where, const LossConfig& loss, const OutputShape& output,
                                       Problems& problems) {
  const auto object = ReadKerasObject(value, where, problems);
  if (!object) return std::nullopt;
  MetricConfig metric;
  if (IsAccuracy(*object)) {
    metric.kind = ResolveAccuracy(output);
  } else if (object->name == "Accuracy") {
    problems.push_back(absl::StrCat(where,
                                    ": keras.metrics.Accuracy asks whether an output equals the class number, which a probability "
                                    "never does; \"accuracy\" is what you mean"));
    return std::nullopt;
  } else if (!FindMetric(object->name, metric)) {
    problems.push_back(absl::StrCat(where, ": metric ", NotKnown(object->name, KnownMetrics())));
    return std::nullopt;
  }
  ConfigFields fields(object->config, where, problems);
  metric.name = object->named ? object->name : fields.Text("name", metric.name);
  ReadMetricOptions(fields, metric);
  if (const std::string misfit = Misfit(metric, loss, output); !misfit.empty()) {
    problems.push_back(absl::StrCat(where, ": ", metric.name, " ", misfit));
  }
  return metric;
}

}  // namespace lockstep
