#include "trainer/checkpoint_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

constexpr char kPart[] = ".part";

}  // namespace

absl::StatusOr<FileDigest> KeepInFolder(const std::string& folder, const std::string& name, const std::string& source) {
  if (mkdir(folder.c_str(), 0777) == 0) {
    RETURN_IF_ERROR(FlushDirectory(std::filesystem::path(folder).parent_path().string()));
  } else if (errno != EEXIST) {
    return ErrnoStatus(errno, "checkpoint.folder: cannot make", folder);
  }
  ASSIGN_OR_RETURN(const FileDigest digest, DigestFile(source));
  // A trainer of before may be writing the same one, if it was only stopped.
  const std::string part = absl::StrCat(folder, "/", name, ".", getpid(), kPart);
  std::error_code error;
  if (!std::filesystem::copy_file(source, part, std::filesystem::copy_options::overwrite_existing, error)) {
    unlink(part.c_str());
    return ErrnoStatus(error.value(), "checkpoint.folder: cannot write", part);
  }
  RETURN_IF_ERROR(PublishFile(part, absl::StrCat(folder, "/", name)));
  return digest;
}

void SweepFolder(const std::string& folder, const std::vector<std::string>& kept) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    const bool ours = name.starts_with("checkpoint-") && (name.ends_with(".safetensors") || name.ends_with(kPart));
    if (!ours || std::find(kept.begin(), kept.end(), name) != kept.end()) continue;
    if (unlink(entry.path().c_str()) != 0) LOG_WARNING("file=%s error=\"cannot remove it\"", entry.path().string());
  }
}

CheckpointStorage FolderStorage(const std::string& checkpoint_folder, const std::string& job_id, Link& link) {
  const std::string folder = absl::StrCat(checkpoint_folder, "/", job_id);
  CheckpointStorage storage;
  storage.store = [folder, &link](const std::string& name, const std::string& path) -> absl::Status {
    ASSIGN_OR_RETURN(const FileDigest digest, KeepInFolder(folder, name, path));
    ASSIGN_OR_RETURN(const std::vector<std::string> kept, link.TellKept(name, digest));
    SweepFolder(folder, kept);
    return absl::OkStatus();
  };
  storage.fetch = [folder](const std::string& name, const std::string& path) -> absl::Status {
    const std::string source = absl::StrCat(folder, "/", name);
    if (access(source.c_str(), R_OK) != 0) return ErrnoStatus(errno, "checkpoint.folder: cannot read", source);
    unlink(path.c_str());
    return symlink(source.c_str(), path.c_str()) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "cannot link to", source);
  };
  return storage;
}

}  // namespace lockstep
