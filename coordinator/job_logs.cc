#include "coordinator/job_logs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

constexpr size_t kPiece = 64 << 10;
constexpr size_t kLongestLine = 16 << 10;
constexpr char kFull[] = "the log of this job is full: further lines are dropped\n";

std::string WithPrefix(const v1::LogLines& lines) {
  std::string text;
  for (absl::string_view line : absl::StrSplit(lines.text(), '\n', absl::SkipEmpty())) {
    absl::StrAppend(&text, lines.generation(), ".", lines.rank(), " ", line.substr(0, kLongestLine), "\n");
  }
  return text;
}

}  // namespace

JobLogs::File& JobLogs::FileOf(const std::string& job_id) {
  const auto [found, inserted] = files_.emplace(job_id, File());
  File& file = found->second;
  if (!inserted) return file;
  const std::string path = folder_.JobPath(job_id, kLogFile);
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return file;
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  struct stat info {};
  if (fstat(fd, &info) == 0) file.bytes = info.st_size;
  // A crash may have cut the last line.
  std::string end(std::min<size_t>(kPiece, static_cast<size_t>(file.bytes)), '\0');
  const ssize_t count = pread(fd, end.data(), end.size(), file.bytes - static_cast<int64_t>(end.size()));
  if (count != static_cast<ssize_t>(end.size())) return file;
  const size_t cut = end.size() - (end.rfind('\n') == std::string::npos ? 0 : end.rfind('\n') + 1);
  if (cut > 0 && ftruncate(fd, file.bytes - static_cast<int64_t>(cut)) == 0) file.bytes -= static_cast<int64_t>(cut);
  end.resize(end.size() - cut);
  file.full = absl::EndsWith(end, kFull);
  return file;
}

absl::Status JobLogs::Append(const v1::LogLines& lines) {
  std::string text = WithPrefix(lines);
  const std::string path = folder_.JobPath(lines.job_id(), kLogFile);
  absl::MutexLock lock(&mutex_);
  File& file = FileOf(lines.job_id());
  if (text.empty() || file.full) return absl::OkStatus();
  const bool full = file.bytes + static_cast<int64_t>(text.size()) > most_bytes_;
  if (full) text = kFull;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = write(fd, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      const int error = errno;
      // Readers count on whole lines.
      if (ftruncate(fd, file.bytes) != 0) file.bytes += static_cast<int64_t>(done);
      return ErrnoStatus(error, "cannot write", path);
    }
    done += static_cast<size_t>(count);
  }
  file.bytes += static_cast<int64_t>(done);
  file.full = full;
  return absl::OkStatus();
}

absl::StatusOr<std::string> JobLogs::Read(const std::string& job_id, int64_t offset, absl::Duration wait) {
  {
    absl::MutexLock lock(&mutex_);
    const File& file = FileOf(job_id);
    const auto more = [&file, offset] { return file.bytes > offset; };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&more), wait)) return std::string();
  }
  const std::string path = folder_.JobPath(job_id, kLogFile);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  std::string text(kPiece, '\0');
  const ssize_t count = pread(fd, text.data(), text.size(), offset);
  if (count < 0) return ErrnoStatus(errno, "cannot read", path);
  text.resize(static_cast<size_t>(count));
  const size_t end = text.rfind('\n');
  text.resize(end == std::string::npos ? 0 : end + 1);
  return text;
}

}  // namespace lockstep
