#pragma once
// Named arrays in an HDF5 file: what the parity tests pass between Python and the probe. One thread.

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep {

class ArrayFile {
 public:
  static absl::StatusOr<ArrayFile> OpenToRead(const std::string& path);
  static absl::StatusOr<ArrayFile> Create(const std::string& path);
  ArrayFile(ArrayFile&& other) noexcept;
  ArrayFile& operator=(ArrayFile&&) = delete;
  ~ArrayFile();

  bool Has(const std::string& name) const;
  // `type`: kFloat, kDouble or kLong; HDF5 converts.
  absl::StatusOr<at::Tensor> Read(const std::string& name, at::ScalarType type) const;
  // A float or double tensor; groups along the name are made. Stored as it is, in row-major order.
  absl::Status Write(const std::string& name, const at::Tensor& value);

 private:
  ArrayFile(int64_t id, std::string path);
  int64_t id_;
  std::string path_;
};

}  // namespace lockstep
