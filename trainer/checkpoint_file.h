#pragma once
// A checkpoint as a file: the safetensors format (https://github.com/huggingface/safetensors), so that others can read the tensors, with
// a checksum over all of it in its metadata. docs/checkpoints.md has an example byte by byte. No libtorch.
//
// Not thread-safe.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/file_descriptor.h"

namespace lockstep {

struct CheckpointTensor {
  std::string name;
  std::string dtype;  // "F32", "F64", "U8"
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
};

// Writes header and tensors one after the other, holding none of them.
class CheckpointFileWriter {
 public:
  static absl::StatusOr<std::unique_ptr<CheckpointFileWriter>> Create(const std::string& path,
                                                                      const std::map<std::string, std::string>& metadata,
                                                                      const std::vector<CheckpointTensor>& tensors);
  ~CheckpointFileWriter();
  // The bytes of the tensors, in their order, in pieces of any size.
  absl::Status Append(absl::Span<const std::byte> bytes);
  // Puts the checksum in its place; without it the file is none. InvalidArgument: bytes are missing, or too many.
  absl::Status Finish();

 private:
  struct Hash;
  CheckpointFileWriter(std::string path, FileDescriptor file, uint64_t bytes, size_t checksum_at);
  absl::Status Write(const void* data, size_t bytes);

  const std::string path_;
  const FileDescriptor file_;
  uint64_t missing_;          // bytes of tensors
  const size_t checksum_at_;  // offset in the file
  std::unique_ptr<Hash> hash_;
};

class CheckpointFileReader {
 public:
  // DataLoss: it is none, it is torn, or any bit of it is not what was written.
  static absl::StatusOr<std::unique_ptr<CheckpointFileReader>> Open(const std::string& path);

  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Null: there is none of this name.
  const CheckpointTensor* Find(const std::string& name) const;
  // DataLoss: there is none, or it has another size than `to`.
  absl::Status Read(const std::string& name, absl::Span<std::byte> to) const;

 private:
  explicit CheckpointFileReader(std::string path, FileDescriptor file) : path_(std::move(path)), file_(std::move(file)) {}
  absl::Status ReadHeader();
  absl::Status Verify(const std::string& checksum, size_t checksum_at) const;
  absl::Status Damaged(const std::string& how) const;

  const std::string path_;
  const FileDescriptor file_;
  uint64_t file_bytes_ = 0;
  std::string header_;  // with the eight bytes before it
  std::map<std::string, std::string> metadata_;
  struct Entry {
    CheckpointTensor tensor;
    uint64_t offset = 0;  // in the file
  };
  std::map<std::string, Entry> tensors_;
};

}  // namespace lockstep
