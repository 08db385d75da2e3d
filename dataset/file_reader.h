#pragma once
// Where the bytes of a sample come from. The seam for other stores than folders, and for tests. Thread-safe.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"

namespace lockstep::dataset {

class FileReader {
 public:
  virtual ~FileReader() = default;
  // Fills `contents`, whose capacity is kept, with a file that the index says has `bytes`. DataLoss if it has another size:
  // trying again does not help. Any other error may pass.
  virtual absl::Status Read(const std::string& path, int64_t bytes, std::string& contents) const = 0;
};

std::unique_ptr<FileReader> LocalFiles();

}  // namespace lockstep::dataset
