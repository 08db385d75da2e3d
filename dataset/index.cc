#include "dataset/index.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/index_format.h"

namespace lockstep::dataset {
namespace {

constexpr size_t kPieceBytes = 256 << 10;

// XXH3-64 of bytes [begin, end) of a file, read rather than mapped, so that they do not count as resident.
absl::StatusOr<uint64_t> HashOf(int fd, uint64_t begin, uint64_t end) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset(hash.get());
  std::vector<char> piece(kPieceBytes);
  while (begin < end) {
    const size_t wanted = std::min<uint64_t>(piece.size(), end - begin);
    const ssize_t got = pread(fd, piece.data(), wanted, static_cast<off_t>(begin));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "cannot read", "it");
    if (got == 0) return absl::DataLossError("it is being cut short");
    XXH3_64bits_update(hash.get(), piece.data(), static_cast<size_t>(got));
    begin += static_cast<uint64_t>(got);
  }
  return XXH3_64bits_digest(hash.get());
}

// Whether the parts lie where they can: one after the other, up to the end.
bool PartsFit(const IndexHeader& header, uint64_t file_bytes) {
  return header.file_bytes == file_bytes && header.table_offset >= sizeof(header) && header.table_offset <= header.strings_offset &&
         header.strings_offset <= file_bytes && header.samples == (header.strings_offset - header.table_offset) / sizeof(IndexEntry);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Index>> Index::Open(const std::string& path) {
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, "cannot open index", path);
  struct stat info {};
  if (fstat(file.get(), &info) != 0) return ErrnoStatus(errno, "cannot stat index", path);
  if (static_cast<size_t>(info.st_size) < sizeof(IndexHeader))
    return absl::DataLossError(absl::StrCat("index ", path, ": it is cut short"));
  // Samples are looked up one by one, anywhere.
  posix_fadvise(file.get(), 0, 0, POSIX_FADV_RANDOM);
  std::unique_ptr<Index> index(new Index(std::move(file), path, static_cast<uint64_t>(info.st_size)));
  RETURN_IF_ERROR(Annotate(index->Read(), absl::StrCat("index ", path)));
  return index;
}

absl::Status Index::ReadAt(uint64_t offset, size_t bytes, void* to) const {
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(file_.get(), at, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "cannot read index", path_);
    if (got == 0) return absl::DataLossError(absl::StrCat("index ", path_, ": it is cut short"));
    at += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

absl::Status Index::Read() {
  IndexHeader header;
  RETURN_IF_ERROR(ReadAt(0, sizeof(header), &header));
  if (std::memcmp(header.magic, kIndexMagic, sizeof(kIndexMagic)) != 0) {
    return absl::DataLossError("it is not an index, or one of another version");
  }
  if (header.hash != XXH3_64bits(&header, kHashedHeaderBytes)) return absl::DataLossError("its header is damaged");
  if (!PartsFit(header, bytes_)) {
    return absl::DataLossError(absl::StrCat("it is cut short: it has ", bytes_, " bytes of ", header.file_bytes));
  }
  ASSIGN_OR_RETURN(const uint64_t table_hash, HashOf(file_.get(), sizeof(header), header.strings_offset));
  ASSIGN_OR_RETURN(const uint64_t strings_hash, HashOf(file_.get(), header.strings_offset, header.file_bytes));
  if (table_hash != header.table_hash || strings_hash != header.strings_hash) {
    return absl::DataLossError("it is damaged: its checksum is wrong");
  }
  samples_ = static_cast<int64_t>(header.samples);
  hash_ = header.hash;
  table_ = header.table_offset;
  strings_ = header.strings_offset;
  std::string names(table_ - sizeof(header), '\0');
  RETURN_IF_ERROR(ReadAt(sizeof(header), names.size(), names.data()));
  for (size_t at = 0; at < names.size();) {
    uint32_t length = 0;
    std::memcpy(&length, names.data() + at, sizeof(length));
    at += sizeof(length);
    classes_.push_back(names.substr(at, length));
    at += length;
  }
  return absl::OkStatus();
}

absl::StatusOr<SampleInfo> Index::Sample(int64_t sample) const {
  IndexEntry entry;
  RETURN_IF_ERROR(ReadAt(table_ + static_cast<uint64_t>(sample) * sizeof(entry), sizeof(entry), &entry));
  SampleInfo info{std::string(entry.path_bytes, '\0'), entry.label, static_cast<int64_t>(entry.bytes)};
  RETURN_IF_ERROR(ReadAt(strings_ + entry.path_offset, info.path.size(), info.path.data()));
  return info;
}

std::string Index::PathOf(int64_t sample) const {
  const absl::StatusOr<SampleInfo> info = Sample(sample);
  return info.ok() ? info->path : absl::StrCat("sample ", sample);
}

}  // namespace lockstep::dataset
