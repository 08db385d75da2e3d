#include "client/job_check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "rpc/file_stream.h"

namespace lockstep {
namespace {

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

void CheckLength(const v1::Job& job, std::vector<std::string>& errors) {
  if (job.kind() == v1::Job::FIT && job.length_case() == v1::Job::LENGTH_NOT_SET) {
    errors.push_back("epochs (--epochs) or steps (--steps): one of the two is required");
  }
}

void CheckReplicas(const v1::Job& job, std::vector<std::string>& errors) {
  const v1::Replicas& replicas = job.replicas();
  if (replicas.min() > replicas.max() && replicas.max() != 0) {
    errors.push_back(absl::StrCat("replicas.min: ", replicas.min(), " is more than replicas.max, ", replicas.max()));
  }
  if (job.batch() == 0) return;
  const uint32_t v = job.virtual_replicas();
  if (v != 0 && job.batch() % v != 0) {
    errors.push_back(absl::StrCat("batch (--batch): ", job.batch(), " is not a multiple of virtual_replicas, ", v,
                                  "; every virtual replica takes an equal part of the batch"));
    return;
  }
  const uint32_t resolved = v != 0 ? v : DefaultVirtualReplicas(job.batch());
  if (std::max(replicas.min(), replicas.max()) > resolved) {
    errors.push_back(absl::StrCat("replicas (--replicas): ", std::max(replicas.min(), replicas.max()), " replicas have nothing to do with ",
                                  resolved, " virtual replicas",
                                  v == 0 ? absl::StrCat(" (the default for a batch of ", job.batch(), ")") : "",
                                  "; raise virtual_replicas (--virtual-replicas) to at least as many"));
  }
  if (job.micro_batch() > job.batch() / resolved) {
    errors.push_back(absl::StrCat("micro_batch (--micro-batch): ", job.micro_batch(), " is more than the ", job.batch() / resolved,
                                  " samples of a virtual replica"));
  }
}

void CheckImage(const v1::Image& image, std::vector<std::string>& errors) {
  const auto good = [](int count) { return count == 0 || count == 1 || count == 3; };
  if (!good(image.mean_size())) errors.push_back(absl::StrCat("data.image.mean: expected 1 or 3 numbers, got ", image.mean_size()));
  if (!good(image.std_size())) errors.push_back(absl::StrCat("data.image.std: expected 1 or 3 numbers, got ", image.std_size()));
  for (const double value : image.std()) {
    if (value <= 0) errors.push_back(absl::StrCat("data.image.std: expected numbers over 0, got ", value));
  }
}

// A metric of validation needs validation data.
void CheckMonitor(const v1::Job& job, const char* field, const std::string& metric, std::vector<std::string>& errors) {
  if (absl::StartsWith(metric, "val_") && !job.data().has_validation()) {
    errors.push_back(absl::StrCat(field, ": ", metric, " needs data.validation (--validation)"));
  }
}

void CheckCallbacks(const v1::Job& job, std::vector<std::string>& errors) {
  CheckMonitor(job, "checkpoint.best (--best)", job.checkpoint().best(), errors);
  CheckMonitor(job, "stop_early.metric (--stop-early)", job.stop_early().metric(), errors);
  CheckMonitor(job, "reduce_on_plateau.metric (--reduce-on-plateau)", job.reduce_on_plateau().metric(), errors);
  if (job.has_stop_early() && job.stop_early().metric().empty()) {
    errors.push_back("stop_early.metric (--stop-early): required with the other fields of stop_early, like val_loss");
  }
  if (job.has_reduce_on_plateau() && job.reduce_on_plateau().metric().empty()) {
    errors.push_back("reduce_on_plateau.metric (--reduce-on-plateau): required with the other fields of reduce_on_plateau");
  }
  if (job.checkpoint().best().empty() && !job.checkpoint().mode().empty()) {
    errors.push_back("checkpoint.mode (--best-mode): has no meaning without checkpoint.best (--best)");
  }
}

absl::Status CheckFolder(const char* field, const std::string& folder) {
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) return absl::NotFoundError(absl::StrCat(field, ": no such folder: ", folder));
  if (!std::filesystem::is_directory(folder, error)) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": not a folder: ", folder));
  }
  if (access(folder.c_str(), R_OK | X_OK) != 0) return ErrnoStatus(errno, absl::StrCat(field, ": cannot list"), folder);
  return absl::OkStatus();
}

}  // namespace

uint32_t DefaultVirtualReplicas(uint32_t batch) {
  uint32_t v = 8;
  while (v > 1 && (batch % v != 0 || batch / v < 4)) v /= 2;
  return v;
}

std::vector<std::string> CheckFields(const JobDraft& draft) {
  const v1::Job& job = draft.job;
  std::vector<std::string> errors;
  if (draft.model_path.empty()) errors.push_back("model: required; name a .keras file as the first argument, or in the job file");
  if (job.data().train().folder().empty()) {
    errors.push_back(job.kind() == v1::Job::FIT ? "data.train (--train): required" : "data.train (--data): required");
  }
  if (job.batch() == 0) errors.push_back("batch (--batch): required");
  if (job.device() == v1::Job::CUDA && !job.plan_only()) {
    errors.push_back("device (--device): nothing can be run on cuda yet, only planned (lockstep plan); leave it out to run on cpu");
  }
  CheckLength(job, errors);
  CheckReplicas(job, errors);
  CheckImage(job.data().image(), errors);
  CheckCallbacks(job, errors);
  return errors;
}

std::vector<std::string> CheckFolders(const v1::Job& job) {
  std::vector<std::string> errors;
  const auto check = [&errors](const char* field, const std::string& folder) {
    if (folder.empty()) return;
    if (const absl::Status status = CheckFolder(field, folder); !status.ok()) errors.emplace_back(status.message());
  };
  check(job.kind() == v1::Job::FIT ? "data.train (--train)" : "data.train (--data)", job.data().train().folder());
  check("data.validation (--validation)", job.data().validation().folder());
  check("checkpoint.folder (--checkpoint-folder)", job.checkpoint().folder());
  return errors;
}

absl::Status CheckModelFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Annotate(ErrnoStatus(errno, "cannot open", path), "model");
  const auto closer = absl::MakeCleanup([fd] { close(fd); });
  struct stat info {};
  if (fstat(fd, &info) != 0) return Annotate(ErrnoStatus(errno, "cannot stat", path), "model");
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat("model: ", path, " is not a file; a .keras archive is expected (model.save(\"name.keras\"))"));
  }
  char magic[4] = {};
  if (pread(fd, magic, sizeof(magic), 0) != sizeof(magic) || std::memcmp(magic, "PK\x03\x04", 4) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("model: ", path, " is not a .keras archive (it does not begin as a ZIP file does)"));
  }
  return absl::OkStatus();
}

absl::Status CheckOutputFile(const std::string& path) {
  const std::string parent = ParentOf(path);
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return absl::InvalidArgumentError(absl::StrCat(path, " is a folder, not a file"));
  // What is renamed over a device or a pipe takes its place.
  if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", path, ": it is there, and is not a file"));
  }
  if (!std::filesystem::exists(parent, error))
    return absl::NotFoundError(absl::StrCat("cannot write ", path, ": no such folder: ", parent));
  if (!std::filesystem::is_directory(parent, error)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot write ", path, ": not a folder: ", parent));
  }
  // Tried rather than asked: permission bits say nothing of read-only and special file systems.
  const std::string probe = absl::StrCat(path, ".check.", getpid());
  const int fd = open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, absl::StrCat("cannot write ", path, ": cannot make files in"), parent);
  close(fd);
  unlink(probe.c_str());
  return absl::OkStatus();
}

absl::StatusOr<v1::ModelFile> DescribeModelFile(const std::string& path) {
  ASSIGN_OR_RETURN(const FileDigest digest, DigestFile(path));
  v1::ModelFile file;
  file.set_file_name(std::filesystem::path(path).filename().string());
  file.set_size_bytes(digest.bytes);
  file.set_xxh3_128(digest.xxh3_128);
  return file;
}

}  // namespace lockstep
