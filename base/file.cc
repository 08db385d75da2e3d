#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lockstep {
absl::Status ErrnoStatus(int error, std::string_view what, std::string_view path) {
  const std::string message = absl::StrCat(std::string(what), " ", std::string(path), ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR: return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS: return absl::PermissionDeniedError(message);
    default: return absl::UnknownError(message);
  }
}

absl::Status FlushDirectory(const std::string& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open directory", directory);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : ErrnoStatus(error, "cannot flush directory", directory);
}

absl::Status WriteAll(int fd, std::string_view bytes, std::string_view path) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "cannot write", path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  auto closer = absl::MakeCleanup([fd] { close(fd); });
  struct stat info {};
  if (fstat(fd, &info) != 0) return ErrnoStatus(errno, "cannot stat", path);
  if (S_ISDIR(info.st_mode)) return ErrnoStatus(EISDIR, "cannot read", path);
  std::string contents(static_cast<size_t>(info.st_size), '\0');
  size_t have = 0;
  for (;;) {
    if (have == contents.size()) contents.resize(contents.size() + 4096);
    const ssize_t count = read(fd, contents.data() + have, contents.size() - have);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot read", path);
    if (count == 0) break;
    have += static_cast<size_t>(count);
  }
  contents.resize(have);
  return contents;
}

absl::Status PublishFile(const std::string& temporary, const std::string& path) {
  auto remove_temporary = absl::MakeCleanup([&temporary] { unlink(temporary.c_str()); });
  const int fd = open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", temporary);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  if (result != 0) return ErrnoStatus(error, "cannot flush", path);
  if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoStatus(errno, "cannot rename to", path);
  std::move(remove_temporary).Cancel();
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return FlushDirectory(parent.empty() ? "." : parent);
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view contents) {
  const std::string temporary = absl::StrCat(path, ".tmp.", getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", temporary);
  auto remove_temporary = absl::MakeCleanup([&temporary] { unlink(temporary.c_str()); });
  {
    auto closer = absl::MakeCleanup([fd] { close(fd); });
    RETURN_IF_ERROR(WriteAll(fd, contents, path));
  }
  std::move(remove_temporary).Cancel();
  return PublishFile(temporary, path);
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoStatus(error.value(), "cannot create directory", path);
  return absl::OkStatus();
}

}  // namespace lockstep
