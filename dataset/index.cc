#include "dataset/index.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/index_format.h"

namespace lockstep::dataset {

absl::StatusOr<std::unique_ptr<Index>> Index::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open index", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  struct stat info {};
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot stat index", path);
  const auto bytes = static_cast<size_t>(info.st_size);
  if (bytes < sizeof(IndexHeader)) return absl::DataLossError(absl::StrCat("index ", path, " is cut short"));
  void* mapping = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) return ErrnoStatus(errno, "cannot map index", path);
  std::unique_ptr<Index> index(new Index(mapping, bytes));
  RETURN_IF_ERROR(index->Read(path));
  // The pages that the checksum touched are not needed: samples are looked up one by one, anywhere.
  madvise(mapping, bytes, MADV_DONTNEED);
  madvise(mapping, bytes, MADV_RANDOM);
  return index;
}

Index::~Index() { munmap(mapping_, bytes_); }

absl::Status Index::Read(const std::string& path) {
  const char* file = static_cast<const char*>(mapping_);
  IndexHeader header;
  std::memcpy(&header, file, sizeof(header));
  const auto damaged = [&](const char* what) { return absl::DataLossError(absl::StrCat("index ", path, " ", what)); };
  if (std::memcmp(header.magic, kIndexMagic, sizeof(kIndexMagic)) != 0) return damaged("is not an index of this version");
  if (header.file_bytes != bytes_) return damaged("is cut short");
  hash_ = XXH3_64bits(file + sizeof(header), bytes_ - sizeof(header));
  if (hash_ != header.hash) return damaged("is damaged: its checksum is wrong");
  if (header.table_offset > bytes_ || header.strings_offset > bytes_ || header.table_offset < sizeof(header) ||
      header.samples > (bytes_ - header.table_offset) / sizeof(IndexEntry)) {
    return damaged("has offsets beyond its end");
  }
  samples_ = static_cast<int64_t>(header.samples);
  table_ = file + header.table_offset;
  strings_ = file + header.strings_offset;
  const char* at = file + sizeof(header);
  for (uint64_t i = 0; i < header.classes; ++i) {
    uint32_t length = 0;
    if (at + sizeof(length) > table_) return damaged("has class names beyond their place");
    std::memcpy(&length, at, sizeof(length));
    at += sizeof(length);
    if (length > static_cast<size_t>(table_ - at)) return damaged("has class names beyond their place");
    classes_.emplace_back(at, length);
    at += length;
  }
  return absl::OkStatus();
}

SampleInfo Index::Sample(int64_t sample) const {
  IndexEntry entry;
  std::memcpy(&entry, table_ + static_cast<size_t>(sample) * sizeof(entry), sizeof(entry));
  return {{strings_ + entry.path_offset, entry.path_bytes}, entry.label, static_cast<int64_t>(entry.bytes)};
}

}  // namespace lockstep::dataset
