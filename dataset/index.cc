#include "dataset/index.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
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
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open index", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  struct stat info {};
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot stat index", path);
  const auto bytes = static_cast<size_t>(info.st_size);
  if (bytes < sizeof(IndexHeader)) return absl::DataLossError(absl::StrCat("index ", path, ": it is cut short"));
  void* mapping = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) return ErrnoStatus(errno, "cannot map index", path);
  std::unique_ptr<Index> index(new Index(mapping, bytes));
  // Samples are looked up one by one, anywhere.
  madvise(mapping, bytes, MADV_RANDOM);
  RETURN_IF_ERROR(Annotate(index->Read(fd), absl::StrCat("index ", path)));
  return index;
}

Index::~Index() { munmap(mapping_, bytes_); }

absl::Status Index::Read(int fd) {
  const char* file = static_cast<const char*>(mapping_);
  IndexHeader header;
  std::memcpy(&header, file, sizeof(header));
  if (std::memcmp(header.magic, kIndexMagic, sizeof(kIndexMagic)) != 0) {
    return absl::DataLossError("it is not an index, or one of another version");
  }
  if (header.hash != XXH3_64bits(&header, kHashedHeaderBytes)) return absl::DataLossError("its header is damaged");
  if (!PartsFit(header, bytes_)) {
    return absl::DataLossError(absl::StrCat("it is cut short: it has ", bytes_, " bytes of ", header.file_bytes));
  }
  ASSIGN_OR_RETURN(const uint64_t table_hash, HashOf(fd, sizeof(header), header.strings_offset));
  ASSIGN_OR_RETURN(const uint64_t strings_hash, HashOf(fd, header.strings_offset, header.file_bytes));
  if (table_hash != header.table_hash || strings_hash != header.strings_hash) {
    return absl::DataLossError("it is damaged: its checksum is wrong");
  }
  samples_ = static_cast<int64_t>(header.samples);
  hash_ = header.hash;
  table_ = file + header.table_offset;
  strings_ = file + header.strings_offset;
  for (const char* at = file + sizeof(header); at < table_;) {
    uint32_t length = 0;
    std::memcpy(&length, at, sizeof(length));
    at += sizeof(length);
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
