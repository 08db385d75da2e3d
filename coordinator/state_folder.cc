#include "coordinator/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/job_id.h"

namespace lockstep {
namespace {

constexpr char kJobs[] = "/jobs";
constexpr char kIncoming[] = "/incoming";
constexpr size_t kDigestDigitsInName = 16;

}  // namespace

absl::StatusOr<std::unique_ptr<StateFolder>> StateFolder::Open(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  if (!parent.empty()) RETURN_IF_ERROR(MakeDirectories(parent));
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, "cannot create directory", path);
  const std::string lock = absl::StrCat(path, "/lock");
  const int fd = open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", lock);
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    close(fd);
    if (error != EWOULDBLOCK) return ErrnoStatus(error, "cannot lock", lock);
    return absl::FailedPreconditionError(absl::StrCat("state folder ", path, " is in use by another coordinator"));
  }
  std::unique_ptr<StateFolder> folder(new StateFolder(path, fd));
  for (const char* sub : {kJobs, kIncoming}) {
    const std::string inner = absl::StrCat(path, sub);
    if (mkdir(inner.c_str(), 0700) != 0 && errno != EEXIST) return ErrnoStatus(errno, "cannot create directory", inner);
  }
  RETURN_IF_ERROR(FlushDirectory(path));
  return folder;
}

StateFolder::~StateFolder() { close(lock_fd_); }

std::string StateFolder::StorePath() const { return absl::StrCat(path_, "/store.sqlite"); }

std::string StateFolder::JobPath(const std::string& job_id, const std::string& file) const {
  return absl::StrCat(path_, kJobs, "/", job_id, "/", file);
}

std::string StateFolder::NewIncomingPath() const {
  static std::atomic<uint64_t> count{0};
  return absl::StrCat(path_, kIncoming, "/", getpid(), ".", count++);
}

absl::Status StateFolder::Adopt(const std::string& incoming, const std::string& job_id, const std::string& file) const {
  const std::string jobs = absl::StrCat(path_, kJobs);
  const std::string folder = absl::StrCat(jobs, "/", job_id);
  RETURN_IF_ERROR(MakeDirectories(folder));
  const std::string target = JobPath(job_id, file);
  if (rename(incoming.c_str(), target.c_str()) != 0) return ErrnoStatus(errno, "cannot rename to", target);
  RETURN_IF_ERROR(FlushDirectory(folder));
  return FlushDirectory(jobs);
}

void StateFolder::Remove(const std::string& path) const { unlink(path.c_str()); }

void StateFolder::Sweep(const std::set<std::string>& known) const {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(absl::StrCat(path_, kIncoming), error)) {
    if (entry.is_regular_file(error)) Remove(entry.path().string());
  }
  std::vector<std::filesystem::path> empty;
  for (const auto& job : std::filesystem::directory_iterator(absl::StrCat(path_, kJobs), error)) {
    if (NumberOfJobId(job.path().filename().string()) < 0) continue;
    bool used = false;
    for (const auto& file : std::filesystem::directory_iterator(job.path(), error)) {
      const std::string name = file.path().filename().string();
      const std::string relative = absl::StrCat(job.path().filename().string(), "/", name);
      if (name == kLogFile || known.count(relative) > 0) {
        used = true;
        continue;
      }
      LOG_INFO("file=%s action=swept", relative);
      Remove(file.path().string());
    }
    if (!used) empty.push_back(job.path());
  }
  for (const std::filesystem::path& job : empty) std::filesystem::remove(job, error);
}

std::string ArtifactFileName(const std::string& artifact, const std::string& xxh3_128) {
  return absl::StrCat(artifact, ".", xxh3_128.substr(0, kDigestDigitsInName));
}

}  // namespace lockstep
