// Writes an index in one pass over the sorted files: the table and the strings grow side by side, as their places in the file
// are known once all files are counted.

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/index.h"
#include "dataset/index_format.h"

namespace lockstep::dataset {
namespace {

constexpr size_t kBufferBytes = 64 << 10;

// A stretch of the file that is written from its beginning to its end, and hashed.
class Section {
 public:
  Section(int fd, uint64_t offset) : fd_(fd), offset_(offset), hash_(XXH3_createState(), &XXH3_freeState) {
    XXH3_64bits_reset(hash_.get());
    buffer_.reserve(kBufferBytes);
  }

  absl::Status Put(const void* data, size_t bytes) {
    if (buffer_.size() + bytes > kBufferBytes) RETURN_IF_ERROR(Flush());
    buffer_.append(static_cast<const char*>(data), bytes);
    return absl::OkStatus();
  }

  absl::Status Flush() {
    XXH3_64bits_update(hash_.get(), buffer_.data(), buffer_.size());
    for (size_t done = 0; done < buffer_.size();) {
      const ssize_t written = pwrite(fd_, buffer_.data() + done, buffer_.size() - done, static_cast<off_t>(offset_));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) return ErrnoStatus(errno, "cannot write", "it");
      done += static_cast<size_t>(written);
      offset_ += static_cast<uint64_t>(written);
    }
    buffer_.clear();
    return absl::OkStatus();
  }

  uint64_t hash() const { return XXH3_64bits_digest(hash_.get()); }

 private:
  const int fd_;
  uint64_t offset_;
  std::string buffer_;
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash_;
};

absl::Status WriteSorted(FileSorter& sorter, const std::vector<std::string>& classes, int fd) {
  IndexHeader header{};
  std::memcpy(header.magic, kIndexMagic, sizeof(kIndexMagic));
  header.samples = static_cast<uint64_t>(sorter.count());
  header.classes = classes.size();
  header.table_offset = sizeof(header);
  for (const std::string& name : classes) header.table_offset += sizeof(uint32_t) + name.size();
  header.strings_offset = header.table_offset + header.samples * sizeof(IndexEntry);
  header.file_bytes = header.strings_offset + static_cast<uint64_t>(sorter.path_bytes());

  Section table(fd, sizeof(header)), strings(fd, header.strings_offset);
  for (const std::string& name : classes) {
    const auto length = static_cast<uint32_t>(name.size());
    RETURN_IF_ERROR(table.Put(&length, sizeof(length)));
    RETURN_IF_ERROR(table.Put(name.data(), name.size()));
  }
  uint64_t path_offset = 0;
  const auto put = [&](const FoundFile& found) {
    const IndexEntry entry{path_offset, static_cast<uint32_t>(found.path.size()), static_cast<int32_t>(found.label),
                           static_cast<uint64_t>(found.bytes)};
    path_offset += found.path.size();
    RETURN_IF_ERROR(table.Put(&entry, sizeof(entry)));
    return strings.Put(found.path.data(), found.path.size());
  };
  RETURN_IF_ERROR(sorter.ForEach(put));
  RETURN_IF_ERROR(table.Flush());
  RETURN_IF_ERROR(strings.Flush());
  header.table_hash = table.hash();
  header.strings_hash = strings.hash();
  header.hash = XXH3_64bits(&header, kHashedHeaderBytes);
  Section head(fd, 0);
  RETURN_IF_ERROR(head.Put(&header, sizeof(header)));
  return head.Flush();
}

}  // namespace

absl::StatusOr<int64_t> WriteIndex(const FileSource& files, const std::vector<std::string>& classes, const std::string& path,
                                   int64_t memory_bytes) {
  if (memory_bytes < kLeastSortBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(memory_bytes, " bytes are too few for sorting an index; give at least ", kLeastSortBytes));
  }
  FileSorter sorter(path, memory_bytes);
  RETURN_IF_ERROR(files([&sorter](const FoundFile& found) { return sorter.Add(found); }));

  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", temporary);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  auto remove_temporary = absl::MakeCleanup([&temporary] { unlink(temporary.c_str()); });
  RETURN_IF_ERROR(Annotate(WriteSorted(sorter, classes, fd), absl::StrCat("index ", path)));
  if (fsync(fd) != 0) return ErrnoStatus(errno, "cannot flush", path);
  if (std::rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "cannot rename to", path);
  std::move(remove_temporary).Cancel();
  return sorter.count();
}

}  // namespace lockstep::dataset
