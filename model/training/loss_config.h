#pragma once
// Which loss trains and which metrics are shown, as plain data, and how they are read from Keras's serialized form and held against the
// model's output. The job's labels are class numbers; a loss or metric that wants them dense gets them one-hot. No libtorch.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/training/config_fields.h"

namespace lockstep {

// What the model puts out for a batch, and how many classes the data has.
struct OutputShape {
  int64_t units = 0;    // the last axis
  int64_t axes = 0;     // the batch's included; 2 is (batch, units)
  int64_t classes = 0;  // class folders
};

enum class CrossentropyKind { kSparseCategorical, kCategorical, kBinary };

struct LossConfig {
  enum class Reduction { kMean, kSum };
  CrossentropyKind kind = CrossentropyKind::kSparseCategorical;
  // What the model puts out are logits. Where the model itself ends in softmax or sigmoid, Keras computes from what went into that,
  // whatever is said here.
  bool from_logits = false;
  double label_smoothing = 0;  // categorical and binary
  Reduction reduction = Reduction::kMean;
  double weight = 1;  // compile()'s loss_weights
};

struct MetricConfig {
  enum class Kind { kBinaryAccuracy, kCategoricalAccuracy, kTopK, kCrossentropy };
  std::string name;  // as Keras prints it
  Kind kind = Kind::kCategoricalAccuracy;
  double threshold = 0.5;  // kBinaryAccuracy
  int64_t k = 5;           // kTopK
  LossConfig loss;         // kCrossentropy; reduction and weight are not used
};

// "crossentropy", "sparse_categorical_crossentropy", "SparseCategoricalCrossentropy" or a serialized object, which may stand in a list
// or dictionary of one (one output has one loss). On problems the result is meaningless.
LossConfig ReadLoss(const Json& value, const std::string& where, const OutputShape& output, Problems& problems);

// One metric. `loss` is the job's: "accuracy" resolves by it as in Keras.
std::optional<MetricConfig> ReadMetric(const Json& value, const std::string& where, const LossConfig& loss, const OutputShape& output,
                                       Problems& problems);

}  // namespace lockstep
