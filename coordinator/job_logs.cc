#include "coordinator/job_logs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/cleanup/cleanup.h"
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
  if (inserted) {
    struct stat info {};
    if (stat(folder_.JobPath(job_id, kLogFile).c_str(), &info) == 0) found->second.bytes = info.st_size;
  }
  return found->second;
}

absl::Status JobLogs::Append(const v1::LogLines& lines) {
  std::string text = WithPrefix(lines);
  const std::string path = folder_.JobPath(lines.job_id(), kLogFile);
  absl::MutexLock lock(&mutex_);
  File& file = FileOf(lines.job_id());
  if (text.empty() || file.full) return absl::OkStatus();
  if (file.bytes + static_cast<int64_t>(text.size()) > most_bytes_) {
    text = kFull;
    file.full = true;
  }
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count = write(fd, text.data() + done, text.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot write", path);
    done += static_cast<size_t>(count);
    file.bytes += count;
  }
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
