#pragma once
// The trained `.keras` file: the submitted archive, entry by entry, with the arrays of its weights rewritten, so that
// keras.models.load_model opens it and training continues there or here. No libtorch.
//
// Where it stands: the last stage of a model's way through a trainer. Arrays are in Keras's layout. Thread-safe.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/keras_archive.h"

namespace lockstep {

// Elements in row-major order, as many as the shape says; the owner's memory.
struct ArchiveArray {
  std::vector<int64_t> shape;
  std::variant<absl::Span<const float>, absl::Span<const double>, absl::Span<const int64_t>> values;
  // Makes the elements when they are written, to be let go of afterwards, so that no two arrays are held at once; what `values` points to
  // is not looked at then, only their number and type. May throw, which is passed on. Null: `values` are the elements.
  std::function<std::shared_ptr<const void>()> make;
};

struct TrainedWeights {
  // By HDF5 path ("layers/dense/vars/0"). Arrays that are not named stay as they are.
  std::map<std::string, ArchiveArray> arrays;
  // Keras's optimizer.variables, in order (see KerasSlots): all that the file will hold, missing ones made, further ones removed.
  std::vector<ArchiveArray> optimizer;
  // Replaces compile_config in config.json. Null: it stays.
  Json compile_config;
};

// Writes `target` from the archive at `source`; the two may be the same file. Arrays are stored with the type they come in. After OK the
// file is durable and whole; after an error `target` is what it was, and nothing is left beside it. Unknown: no space left;
// NotFound, PermissionDenied: the paths; DataLoss: a source that cannot be read.
absl::Status WriteTrainedArchive(const std::string& source, const std::string& target, const TrainedWeights& weights);

}  // namespace lockstep
