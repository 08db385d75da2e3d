#include "dataset/file_sorter.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <queue>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lockstep::dataset {
namespace {

constexpr size_t kLongestPath = 64 << 10;
constexpr size_t kMostMerged = 64;
constexpr size_t kLeastBuffer = 64 << 10;
constexpr size_t kMostHeld = size_t{1} << 31;  // offsets are 32 bits wide

struct RecordHeader {
  uint32_t path_bytes;
  int32_t label;
  uint64_t bytes;
};

// One run being merged: a buffer of its file, and the record at its head.
class RunReader {
 public:
  RunReader(StdioFile file, size_t buffer_bytes) : file_(std::move(file)), buffer_(buffer_bytes) {
    std::setvbuf(file_.get(), nullptr, _IONBF, 0);
  }

  // False at the end.
  absl::StatusOr<bool> Next() {
    ASSIGN_OR_RETURN(const bool more, Have(sizeof(RecordHeader)));
    if (!more) return false;
    RecordHeader header;
    std::memcpy(&header, buffer_.data() + begin_, sizeof(header));
    ASSIGN_OR_RETURN(const bool whole, Have(sizeof(header) + header.path_bytes));
    if (!whole) return absl::DataLossError("a sorted run of the index is cut short");
    head_ = {{buffer_.data() + begin_ + sizeof(header), header.path_bytes}, header.label, static_cast<int64_t>(header.bytes)};
    begin_ += sizeof(header) + header.path_bytes;
    return true;
  }

  const FoundFile& head() const { return head_; }

 private:
  absl::StatusOr<bool> Have(size_t bytes) {
    if (end_ - begin_ >= bytes) return true;
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    if (bytes > buffer_.size()) buffer_.resize(bytes);
    end_ += std::fread(buffer_.data() + end_, 1, buffer_.size() - end_, file_.get());
    if (std::ferror(file_.get()) != 0) return ErrnoStatus(errno, "cannot read", "a sorted run of the index");
    return end_ >= bytes;
  }

  StdioFile file_;
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;
  FoundFile head_;
};

size_t FanIn(size_t memory) { return std::clamp<size_t>(memory / kLeastBuffer - 2, 2, kMostMerged); }

absl::Status WriteRecord(std::FILE* file, const FoundFile& found) {
  const RecordHeader header{static_cast<uint32_t>(found.path.size()), static_cast<int32_t>(found.label),
                            static_cast<uint64_t>(found.bytes)};
  if (std::fwrite(&header, 1, sizeof(header), file) == sizeof(header) &&
      std::fwrite(found.path.data(), 1, found.path.size(), file) == found.path.size()) {
    return absl::OkStatus();
  }
  return ErrnoStatus(errno, "cannot write", "a sorted run of the index");
}

absl::Status Rewind(std::FILE* file) {
  if (std::fflush(file) == 0 && std::fseek(file, 0, SEEK_SET) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "cannot write", "a sorted run of the index");
}

}  // namespace

// Sorting is in place, so what is held may take all the memory; merging comes when nothing is held.
FileSorter::FileSorter(std::string scratch, int64_t memory_bytes)
    : scratch_(std::move(scratch)),
      held_limit_(std::min(static_cast<size_t>(memory_bytes), kMostHeld)),
      fan_in_(FanIn(held_limit_)),
      buffer_bytes_(held_limit_ / (fan_in_ + 2)) {}

absl::Status FileSorter::Add(const FoundFile& file) {
  if (file.path.size() > kLongestPath) {
    return absl::InvalidArgumentError(
        absl::StrCat("a path of ", file.path.size(), " bytes is too long: ", absl::string_view(file.path.data(), 100), "…"));
  }
  // Reserved once, and touched as it fills: growth by doubling would need half as much again.
  if (held_.capacity() == 0) held_.reserve(held_limit_ - held_limit_ / 6), offsets_.reserve(held_limit_ / 6 / sizeof(uint32_t));
  const size_t bytes = sizeof(RecordHeader) + file.path.size();
  if (held_.size() + bytes > held_.capacity() || offsets_.size() == offsets_.capacity()) RETURN_IF_ERROR(Spill());
  const RecordHeader header{static_cast<uint32_t>(file.path.size()), static_cast<int32_t>(file.label), static_cast<uint64_t>(file.bytes)};
  offsets_.push_back(static_cast<uint32_t>(held_.size()));
  const auto* begin = reinterpret_cast<const char*>(&header);
  held_.insert(held_.end(), begin, begin + sizeof(header));
  held_.insert(held_.end(), file.path.begin(), file.path.end());
  ++count_;
  path_bytes_ += static_cast<int64_t>(file.path.size());
  return absl::OkStatus();
}

FoundFile FileSorter::At(uint32_t offset) const {
  RecordHeader header;
  std::memcpy(&header, held_.data() + offset, sizeof(header));
  return {{held_.data() + offset + sizeof(header), header.path_bytes}, header.label, static_cast<int64_t>(header.bytes)};
}

void FileSorter::SortHeld() {
  std::sort(offsets_.begin(), offsets_.end(), [this](uint32_t a, uint32_t b) { return At(a).path < At(b).path; });
}

absl::StatusOr<StdioFile> FileSorter::NewRun() {
  const std::string path = absl::StrCat(scratch_, ".run.", getpid(), ".", runs_made_++);
  StdioFile file(std::fopen(path.c_str(), "w+bxe"));
  if (file == nullptr) return ErrnoStatus(errno, "cannot create", path);
  unlink(path.c_str());
  return file;
}

absl::Status FileSorter::Spill() {
  SortHeld();
  ASSIGN_OR_RETURN(StdioFile file, NewRun());
  for (const uint32_t offset : offsets_) RETURN_IF_ERROR(WriteRecord(file.get(), At(offset)));
  RETURN_IF_ERROR(Rewind(file.get()));
  runs_.push_back(std::move(file));
  held_.clear();
  offsets_.clear();
  return absl::OkStatus();
}

absl::Status FileSorter::Merge(size_t runs, const Visitor& visit) {
  std::vector<RunReader> readers;
  readers.reserve(runs);
  const auto later = [&readers](size_t a, size_t b) { return readers[b].head().path < readers[a].head().path; };
  std::priority_queue<size_t, std::vector<size_t>, decltype(later)> next(later);
  for (size_t i = 0; i < runs; ++i) {
    readers.emplace_back(std::move(runs_.front()), buffer_bytes_);
    runs_.pop_front();
    ASSIGN_OR_RETURN(const bool more, readers[i].Next());
    if (more) next.push(i);
  }
  while (!next.empty()) {
    const size_t first = next.top();
    next.pop();
    RETURN_IF_ERROR(visit(readers[first].head()));
    ASSIGN_OR_RETURN(const bool more, readers[first].Next());
    if (more) next.push(first);
  }
  return absl::OkStatus();
}

absl::Status FileSorter::MergeIntoOne(size_t runs) {
  ASSIGN_OR_RETURN(StdioFile file, NewRun());
  RETURN_IF_ERROR(Merge(runs, [&file](const FoundFile& found) { return WriteRecord(file.get(), found); }));
  RETURN_IF_ERROR(Rewind(file.get()));
  runs_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status FileSorter::ForEach(const Visitor& visit) {
  if (runs_.empty()) {
    SortHeld();
    for (const uint32_t offset : offsets_) RETURN_IF_ERROR(visit(At(offset)));
    return absl::OkStatus();
  }
  if (!offsets_.empty()) RETURN_IF_ERROR(Spill());
  held_ = std::vector<char>();
  offsets_ = std::vector<uint32_t>();
  while (runs_.size() > fan_in_) RETURN_IF_ERROR(MergeIntoOne(fan_in_));
  return Merge(runs_.size(), visit);
}

}  // namespace lockstep::dataset
