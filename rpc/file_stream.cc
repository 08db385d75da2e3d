#include "rpc/file_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

class Hasher {
 public:
  Hasher() { XXH3_128bits_reset(state_.get()); }
  void Add(const void* data, size_t bytes) {
    XXH3_128bits_update(state_.get(), data, bytes);
    bytes_ += bytes;
  }
  FileDigest Digest() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return {bytes_, absl::StrFormat("%016x%016x", hash.high64, hash.low64)};
  }
  uint64_t bytes() const { return bytes_; }

 private:
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_{XXH3_createState(), &XXH3_freeState};
  uint64_t bytes_ = 0;
};

// Calls `piece` with every piece of the file, and once more with nothing at its end.
absl::Status ReadPieces(const std::string& path, absl::FunctionRef<absl::Status(std::string&&)> piece) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  for (;;) {
    std::string data(kChunkBytes, '\0');
    const ssize_t count = read(fd, data.data(), data.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot read", path);
    data.resize(static_cast<size_t>(count));
    RETURN_IF_ERROR(piece(std::move(data)));
    if (count == 0) return absl::OkStatus();
  }
}

absl::Status WriteAll(int fd, const std::string& data, const std::string& path) {
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t count = write(fd, data.data() + done, data.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot write", path);
    done += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::Status CheckDigest(const FileDigest& have, const v1::Chunk& last) {
  if (have.bytes == last.total_bytes() && have.xxh3_128 == last.xxh3_128()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("received ", have.bytes, " bytes with checksum ", have.xxh3_128, ", sent were ",
                                          last.total_bytes(), " with ", last.xxh3_128()));
}

absl::StatusOr<FileDigest> ReceiveInto(int fd, const std::string& path, absl::FunctionRef<bool(v1::Chunk*)> read_chunk,
                                       uint64_t most_bytes) {
  Hasher hasher;
  for (;;) {
    v1::Chunk chunk;
    if (!read_chunk(&chunk)) return absl::UnavailableError(absl::StrCat("the stream of ", path, " ended before its last piece"));
    if (hasher.bytes() + chunk.data().size() > most_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(path, " would be larger than the ", most_bytes, " bytes allowed"));
    }
    RETURN_IF_ERROR(WriteAll(fd, chunk.data(), path));
    hasher.Add(chunk.data().data(), chunk.data().size());
    if (!chunk.last()) continue;
    RETURN_IF_ERROR(CheckDigest(hasher.Digest(), chunk));
    if (fsync(fd) != 0) return ErrnoStatus(errno, "cannot flush", path);
    return hasher.Digest();
  }
}

}  // namespace

absl::StatusOr<FileDigest> DigestFile(const std::string& path) {
  Hasher hasher;
  RETURN_IF_ERROR(ReadPieces(path, [&](std::string&& data) {
    hasher.Add(data.data(), data.size());
    return absl::OkStatus();
  }));
  return hasher.Digest();
}

absl::Status SendFile(const std::string& path, absl::FunctionRef<bool(const v1::Chunk&)> write_chunk) {
  Hasher hasher;
  return ReadPieces(path, [&](std::string&& data) -> absl::Status {
    hasher.Add(data.data(), data.size());
    v1::Chunk chunk;
    if (data.empty()) {
      const FileDigest digest = hasher.Digest();
      chunk.set_last(true);
      chunk.set_total_bytes(digest.bytes);
      chunk.set_xxh3_128(digest.xxh3_128);
    }
    chunk.set_data(std::move(data));
    return write_chunk(chunk) ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("the stream of ", path, " was broken"));
  });
}

absl::StatusOr<FileDigest> ReceiveFile(const std::string& path, absl::FunctionRef<bool(v1::Chunk*)> read_chunk, uint64_t most_bytes) {
  static std::atomic<uint64_t> count{0};
  const std::string temporary = absl::StrCat(path, ".part.", getpid(), ".", count++);
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", temporary);
  auto remove_temporary = absl::MakeCleanup([&temporary] { unlink(temporary.c_str()); });
  absl::StatusOr<FileDigest> digest = ReceiveInto(fd, path, read_chunk, most_bytes);
  close(fd);
  RETURN_IF_ERROR(digest.status());
  if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "cannot rename to", path);
  std::move(remove_temporary).Cancel();
  const std::string parent = std::filesystem::path(path).parent_path().string();
  RETURN_IF_ERROR(FlushDirectory(parent.empty() ? "." : parent));
  return digest;
}

}  // namespace lockstep
