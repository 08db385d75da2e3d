// The sorting half of the index: runs of at most the allowed bytes are sorted and written beside the target, then merged into it.

#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <queue>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/index.h"
#include "dataset/index_format.h"

namespace lockstep::dataset {
namespace {

// What a FoundFile takes in memory beside its path's bytes, rounded up.
constexpr int64_t kRecordBytes = 96;
constexpr size_t kBufferBytes = 256 << 10;

using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

absl::StatusOr<File> OpenFile(const std::string& path, const char* mode) {
  File file(std::fopen(path.c_str(), mode), &std::fclose);
  if (file == nullptr) return ErrnoStatus(errno, "cannot open", path);
  std::setvbuf(file.get(), nullptr, _IOFBF, kBufferBytes);
  return file;
}

absl::Status Put(std::FILE* file, const void* data, size_t bytes, const std::string& path) {
  if (bytes > 0 && std::fwrite(data, 1, bytes, file) != bytes) return ErrnoStatus(errno, "cannot write", path);
  return absl::OkStatus();
}

struct RunHeader {
  uint32_t path_bytes;
  int32_t label;
  uint64_t bytes;
};

absl::Status PutRecord(std::FILE* file, const FoundFile& found, const std::string& path) {
  const RunHeader header{static_cast<uint32_t>(found.path.size()), static_cast<int32_t>(found.label),
                         static_cast<uint64_t>(found.bytes)};
  RETURN_IF_ERROR(Put(file, &header, sizeof(header), path));
  return Put(file, found.path.data(), found.path.size(), path);
}

// False at the end.
absl::StatusOr<bool> GetRecord(std::FILE* file, FoundFile& found, const std::string& path) {
  RunHeader header;
  if (std::fread(&header, 1, sizeof(header), file) != sizeof(header)) {
    if (std::feof(file) != 0) return false;
    return ErrnoStatus(errno, "cannot read", path);
  }
  found.path.resize(header.path_bytes);
  found.label = header.label;
  found.bytes = static_cast<int64_t>(header.bytes);
  if (std::fread(found.path.data(), 1, found.path.size(), file) != found.path.size()) {
    return absl::DataLossError(absl::StrCat(path, " is cut short"));
  }
  return true;
}

bool Before(const FoundFile& a, const FoundFile& b) { return a.path < b.path; }

class Sorter {
 public:
  Sorter(std::string path, int64_t memory_bytes) : path_(std::move(path)), memory_bytes_(memory_bytes) {}
  ~Sorter() {
    for (const std::string& run : runs_) unlink(run.c_str());
  }

  absl::Status Add(FoundFile found) {
    held_bytes_ += kRecordBytes + static_cast<int64_t>(found.path.size());
    held_.push_back(std::move(found));
    ++count_;
    return held_bytes_ < memory_bytes_ ? absl::OkStatus() : Spill();
  }

  int64_t count() const { return count_; }

  // Every file in order. May be called more than once.
  absl::Status ForEach(const std::function<absl::Status(const FoundFile&)>& visit) {
    if (runs_.empty()) {
      if (!sorted_) std::sort(held_.begin(), held_.end(), Before);
      sorted_ = true;
      for (const FoundFile& found : held_) RETURN_IF_ERROR(visit(found));
      return absl::OkStatus();
    }
    if (!held_.empty()) RETURN_IF_ERROR(Spill());
    return Merge(visit);
  }

 private:
  absl::Status Spill() {
    std::sort(held_.begin(), held_.end(), Before);
    const std::string run = absl::StrCat(path_, ".run.", runs_.size());
    ASSIGN_OR_RETURN(const File file, OpenFile(run, "wb"));
    runs_.push_back(run);
    for (const FoundFile& found : held_) RETURN_IF_ERROR(PutRecord(file.get(), found, run));
    if (std::fflush(file.get()) != 0) return ErrnoStatus(errno, "cannot write", run);
    held_ = {};
    held_bytes_ = 0;
    return absl::OkStatus();
  }

  absl::Status Merge(const std::function<absl::Status(const FoundFile&)>& visit) {
    std::vector<File> files;
    std::vector<FoundFile> heads(runs_.size());
    const auto later = [&heads](size_t a, size_t b) { return Before(heads[b], heads[a]); };
    std::priority_queue<size_t, std::vector<size_t>, decltype(later)> next(later);
    for (size_t i = 0; i < runs_.size(); ++i) {
      ASSIGN_OR_RETURN(File file, OpenFile(runs_[i], "rb"));
      files.push_back(std::move(file));
      ASSIGN_OR_RETURN(const bool more, GetRecord(files[i].get(), heads[i], runs_[i]));
      if (more) next.push(i);
    }
    while (!next.empty()) {
      const size_t i = next.top();
      next.pop();
      RETURN_IF_ERROR(visit(heads[i]));
      ASSIGN_OR_RETURN(const bool more, GetRecord(files[i].get(), heads[i], runs_[i]));
      if (more) next.push(i);
    }
    return absl::OkStatus();
  }

  const std::string path_;
  const int64_t memory_bytes_;
  std::vector<FoundFile> held_;
  int64_t held_bytes_ = 0;
  int64_t count_ = 0;
  bool sorted_ = false;
  std::vector<std::string> runs_;
};

}  // namespace

absl::StatusOr<int64_t> WriteIndex(const FileSource& files, const std::vector<std::string>& classes, const std::string& path,
                                   int64_t memory_bytes) {
  Sorter sorter(path, memory_bytes);
  RETURN_IF_ERROR(files([&](FoundFile found) { return sorter.Add(std::move(found)); }));

  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  auto remove_temporary = absl::MakeCleanup([&] { unlink(temporary.c_str()); });
  ASSIGN_OR_RETURN(const File out, OpenFile(temporary, "wb"));
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  const auto put = [&](const void* data, size_t bytes) {
    XXH3_64bits_update(hash.get(), data, bytes);
    return Put(out.get(), data, bytes, path);
  };
  IndexHeader header{};
  std::memcpy(header.magic, kIndexMagic, sizeof(kIndexMagic));
  RETURN_IF_ERROR(Put(out.get(), &header, sizeof(header), path));
  uint64_t offset = sizeof(header);
  for (const std::string& name : classes) {
    const auto length = static_cast<uint32_t>(name.size());
    RETURN_IF_ERROR(put(&length, sizeof(length)));
    RETURN_IF_ERROR(put(name.data(), name.size()));
    offset += sizeof(length) + name.size();
  }
  header.samples = static_cast<uint64_t>(sorter.count());
  header.classes = classes.size();
  header.table_offset = offset;
  header.strings_offset = offset + header.samples * sizeof(IndexEntry);
  uint64_t strings = 0;
  RETURN_IF_ERROR(sorter.ForEach([&](const FoundFile& found) {
    const IndexEntry entry{strings, static_cast<uint32_t>(found.path.size()), static_cast<int32_t>(found.label),
                           static_cast<uint64_t>(found.bytes)};
    strings += found.path.size();
    return put(&entry, sizeof(entry));
  }));
  RETURN_IF_ERROR(sorter.ForEach([&](const FoundFile& found) { return put(found.path.data(), found.path.size()); }));
  header.file_bytes = header.strings_offset + strings;
  header.hash = XXH3_64bits_digest(hash.get());
  if (std::fseek(out.get(), 0, SEEK_SET) != 0) return ErrnoStatus(errno, "cannot write", path);
  RETURN_IF_ERROR(Put(out.get(), &header, sizeof(header), path));
  if (std::fflush(out.get()) != 0 || fsync(fileno(out.get())) != 0) return ErrnoStatus(errno, "cannot flush", path);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "cannot rename to", path);
  std::move(remove_temporary).Cancel();
  return sorter.count();
}

}  // namespace lockstep::dataset
