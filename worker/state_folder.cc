#include "worker/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <random>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/machine.h"

namespace lockstep {
namespace {

absl::StatusOr<FileDescriptor> Lock(const std::string& path) {
  const std::string name = absl::StrCat(path, "/lock");
  FileDescriptor lock(open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.get() < 0) return ErrnoStatus(errno, "cannot open", name);
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "cannot lock", name);
    return absl::UnavailableError(
        absl::StrCat("another worker runs in ", path, "; end it, or give this one a state folder of its own (--state-dir)"));
  }
  return lock;
}

absl::StatusOr<std::string> ReadOrMakeId(const std::string& path) {
  const std::string name = absl::StrCat(path, "/worker_id");
  const absl::StatusOr<std::string> read = ReadFile(name);
  if (!read.ok() && !absl::IsNotFound(read.status())) return read.status();
  const std::string known(absl::StripAsciiWhitespace(read.value_or("")));
  if (!known.empty()) return known;
  std::random_device random;
  const std::string made = absl::StrFormat("%s-%08x", HostName(), random());
  RETURN_IF_ERROR(WriteFileAtomically(name, absl::StrCat(made, "\n")));
  return made;
}

absl::Status RemoveAll(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return ErrnoStatus(error.value(), "cannot remove", path);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateFolder>> StateFolder::Open(const std::string& path) {
  std::error_code error;
  // Trainers work in their scratch folders: a relative path would be another one there.
  const std::string absolute = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error) return ErrnoStatus(error.value(), "cannot resolve", path);
  RETURN_IF_ERROR(MakeDirectories(absolute));
  std::unique_ptr<StateFolder> folder(new StateFolder);
  ASSIGN_OR_RETURN(folder->lock_, Lock(absolute));
  folder->scratch_ = absl::StrCat(absolute, "/scratch");
  RETURN_IF_ERROR(RemoveAll(folder->scratch_));
  RETURN_IF_ERROR(MakeDirectories(folder->scratch_));
  ASSIGN_OR_RETURN(folder->worker_id_, ReadOrMakeId(absolute));
  return folder;
}

StateFolder::~StateFolder() {
  // Of one that could not be locked, the scratch is somebody else's.
  if (!scratch_.empty()) RemoveAll(scratch_).IgnoreError();
}

}  // namespace lockstep
