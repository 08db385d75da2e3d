#pragma once
// The index of a data set: every sample's path, label and size, sorted, in one file that all trainers of a job read. Made once,
// by planning, on a worker that sees the data. Format: docs/data.md.
//
// Listing holds no more than the allowed bytes in memory however large the folder: names are sorted in runs that go to disk,
// and merged. Only the class names, at most a million, are held whole.
//
// Thread-safe: an Index is constant.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/file_descriptor.h"
#include "dataset/file_sorter.h"

namespace lockstep::dataset {

struct IndexOptions {
  // True: the folder holds class folders, whose sorted names are the labels 0, 1, …. False: class folders are used if there are
  // any; pictures beside or without them have label -1.
  bool require_classes = true;
  // For sorting; at least kLeastSortBytes.
  int64_t memory_bytes = 64 << 20;
  // With names: the class folders must be among these, which give the labels (validation has training's).
  std::vector<std::string> expected_classes;
};

struct IndexSummary {
  int64_t samples = 0;
  int64_t ignored_files = 0;  // not .jpg, .jpeg or .png
  int64_t classes = 0;
  std::vector<std::string> notes;  // "412 files ignored: not .jpg, .jpeg or .png"
};

struct SampleInfo {
  std::string path;  // relative to the folder
  int64_t label = -1;
  int64_t bytes = 0;
};

// Calls the sink for every file; stops at its first error.
using FileSink = std::function<absl::Status(const FoundFile&)>;
using FileSource = std::function<absl::Status(const FileSink& sink)>;

// Writes the index of a folder at `path`, which after an error is what it was. InvalidArgument with every problem, a line each:
// no such folder, no class folders, an empty class, an unexpected class, a name that is not UTF-8, no pictures.
// PermissionDenied, Unknown: the folder cannot be read, the file not written.
absl::StatusOr<IndexSummary> BuildIndex(const std::string& folder, const std::string& path, const IndexOptions& options);

// The part of it that sorts and writes: files in any order, labels 0 … classes-1 or -1. Returns how many. Hands on the source's
// error.
absl::StatusOr<int64_t> WriteIndex(const FileSource& files, const std::vector<std::string>& classes, const std::string& path,
                                   int64_t memory_bytes);

class Index {
 public:
  // Reads the whole file once, in pieces, to check it. DataLoss: not an index, of another version, cut short, or damaged.
  static absl::StatusOr<std::unique_ptr<Index>> Open(const std::string& path);
  int64_t size() const { return samples_; }
  const std::vector<std::string>& class_names() const { return classes_; }
  // Read from the file at each call, about a microsecond: a mapping would become resident page by page, and memory grow with the
  // data set. REQUIRES: 0 <= sample < size(). Unknown: the disk.
  absl::StatusOr<SampleInfo> Sample(int64_t sample) const;
  // Its path for messages; "sample 17" where it cannot be read.
  std::string PathOf(int64_t sample) const;
  // Stands for every byte of the index: equal hashes, equal data sets (names, labels, sizes).
  uint64_t hash() const { return hash_; }

 private:
  Index(FileDescriptor file, std::string path, uint64_t bytes) : file_(std::move(file)), path_(std::move(path)), bytes_(bytes) {}
  absl::Status Read();
  absl::Status ReadAt(uint64_t offset, size_t bytes, void* to) const;

  const FileDescriptor file_;
  const std::string path_;
  const uint64_t bytes_;
  int64_t samples_ = 0;
  uint64_t hash_ = 0;
  uint64_t table_ = 0, strings_ = 0;  // where they begin
  std::vector<std::string> classes_;
};

}  // namespace lockstep::dataset
