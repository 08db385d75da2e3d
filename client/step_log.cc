#include "client/step_log.h"

#include <unistd.h>

#include <cerrno>

#include "base/file.h"
#include "client/summary.h"

namespace lockstep {

absl::StatusOr<std::unique_ptr<StepLog>> StepLog::Create(const std::string& path, bool samples) {
  std::FILE* file = std::fopen(path.c_str(), "we");
  if (file == nullptr) return ErrnoStatus(errno, "cannot create", path);
  return std::unique_ptr<StepLog>(new StepLog(path, samples, file));
}

StepLog::~StepLog() {
  if (file_ != nullptr) std::fclose(file_);
}

void StepLog::Append(const v1::StepRecord& record) {
  if (!status_.ok()) return;
  const std::string line = StepLogLine(record, samples_) + "\n";
  const bool written = std::fwrite(line.data(), 1, line.size(), file_) == line.size();
  if (!written || std::fflush(file_) != 0) status_ = ErrnoStatus(errno, "cannot write", path_);
}

absl::Status StepLog::Close() {
  if (file_ == nullptr) return status_;
  // Not every kind of file can be flushed to a disk: /dev/stdout need not.
  if (status_.ok() && fsync(fileno(file_)) != 0 && errno != EINVAL && errno != EROFS) {
    status_ = ErrnoStatus(errno, "cannot flush", path_);
  }
  if (std::fclose(file_) != 0 && status_.ok()) status_ = ErrnoStatus(errno, "cannot write", path_);
  file_ = nullptr;
  return status_;
}

}  // namespace lockstep
