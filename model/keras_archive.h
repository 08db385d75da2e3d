#pragma once
// A `.keras` file, opened for reading: config.json, metadata.json and the arrays of model.weights.h5. No libtorch.
//
// Where it stands: the first stage of a model's way in; model/graph reads the configuration, model/model the arrays.
// The file comes from a user and may be hostile: every size that it states is bounded before anything is allocated for it.
//
// Thread-safety: const methods may be called concurrently (one lock for the whole process around HDF5, which has none).

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep {

using Json = nlohmann::json;

class KerasArchive {
 public:
  enum class Kind { kFloat, kInteger, kBool, kString, kOther };
  struct ArrayInfo {
    std::vector<int64_t> shape;
    Kind kind = Kind::kOther;
    int bytes_per_element = 0;
  };

  // NotFound: no such file. DataLoss: not a zip, truncated, a checksum, broken JSON or HDF5. InvalidArgument: an entry is
  // missing or too large. Every message names the file and the entry.
  static absl::StatusOr<std::unique_ptr<KerasArchive>> Open(const std::string& path);
  // The same from memory; `name` stands for the file in errors.
  static absl::StatusOr<std::unique_ptr<KerasArchive>> FromBytes(std::string bytes, std::string name);
  ~KerasArchive();

  const std::string& name() const { return name_; }
  const Json& config() const { return config_; }
  const Json& metadata() const { return metadata_; }
  // What compile() was told: an object with optimizer, loss, metrics …; null if the model was never compiled.
  const Json& compile_config() const { return compile_config_; }

  // Every array in the weights file by its HDF5 path without a leading slash ("layers/conv2d/vars/0",
  // "optimizer/vars/0"), sorted.
  const std::map<std::string, ArrayInfo>& arrays() const { return arrays_; }
  bool Has(const std::string& path) const { return arrays_.count(path) != 0; }

  // The array's elements in row-major order, converted to T (float, double, int64_t). InvalidArgument if there is no such
  // array, or its shape is not `shape`.
  template <typename T>
  absl::StatusOr<std::vector<T>> Read(const std::string& path, const std::vector<int64_t>& shape) const;
  // Into `out`, which has room for the elements that `shape` states.
  template <typename T>
  absl::Status ReadInto(const std::string& path, const std::vector<int64_t>& shape, T* out) const;

 private:
  class WeightsFile;
  explicit KerasArchive(std::string name);
  // `path`: of the file; empty if it is not one.
  absl::Status ReadEntries(void* zip, const std::string& path);

  const std::string name_;
  Json config_, metadata_, compile_config_;
  std::map<std::string, ArrayInfo> arrays_;
  std::unique_ptr<WeightsFile> weights_;
};

}  // namespace lockstep
