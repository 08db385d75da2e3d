#pragma once
// The step log: a line of JSON for each committed step, written as it comes. Not thread-safe.

#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/progress.pb.h"

namespace lockstep {

class StepLog {
 public:
  // Replaces the file.
  static absl::StatusOr<std::unique_ptr<StepLog>> Create(const std::string& path, bool samples);
  ~StepLog();

  // Readers see the line at once. After the first error nothing more is written; Close tells it.
  void Append(const v1::StepRecord& record);
  // Every line is on disk, or why not.
  absl::Status Close();

 private:
  StepLog(std::string path, bool samples, std::FILE* file) : path_(std::move(path)), samples_(samples), file_(file) {}

  const std::string path_;
  const bool samples_;
  std::FILE* file_;
  absl::Status status_;
};

}  // namespace lockstep
