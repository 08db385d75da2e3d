#pragma once
// Puts the files of a folder in order of their paths' bytes, however many they are, in a fixed amount of memory: sorted runs go
// to disk beside the index, and are merged (Knuth, The Art of Computer Programming, volume 3, 5.4). Used while the index is
// made.
//
// For one thread. The run files are removed as soon as they are opened: nothing is left behind, whatever happens.

#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::dataset {

// A file that was found, below the data set's folder.
struct FoundFile {
  std::string_view path;  // relative; valid for the call only
  int64_t label = -1;
  int64_t bytes = 0;
};

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using StdioFile = std::unique_ptr<std::FILE, CloseFile>;

// Below this there is no room for merging.
inline constexpr int64_t kLeastSortBytes = 1 << 20;

class FileSorter {
 public:
  // `scratch` begins the names of the run files. REQUIRES: memory_bytes >= kLeastSortBytes.
  FileSorter(std::string scratch, int64_t memory_bytes);

  // What the system says (ErrnoStatus) if a run cannot be written; InvalidArgument for a path of more than 64 KiB.
  absl::Status Add(const FoundFile& file);
  int64_t count() const { return count_; }
  // Of all paths together.
  int64_t path_bytes() const { return path_bytes_; }
  // Every file in order, once; stops at the visitor's first error. Nothing can be added after.
  absl::Status ForEach(const std::function<absl::Status(const FoundFile&)>& visit);

 private:
  using Visitor = std::function<absl::Status(const FoundFile&)>;

  FoundFile At(uint32_t offset) const;
  void SortHeld();
  absl::Status Spill();
  absl::StatusOr<StdioFile> NewRun();
  absl::Status Merge(size_t runs, const Visitor& visit);
  absl::Status MergeIntoOne(size_t runs);

  const std::string scratch_;
  const size_t held_limit_;    // bytes of records and offsets together
  const size_t fan_in_;        // runs merged at once
  const size_t buffer_bytes_;  // of one run while merging
  std::vector<char> held_;     // records
  std::vector<uint32_t> offsets_;
  std::deque<StdioFile> runs_;
  int64_t count_ = 0;
  int64_t path_bytes_ = 0;
  int runs_made_ = 0;
};

}  // namespace lockstep::dataset
