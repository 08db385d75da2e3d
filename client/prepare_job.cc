#include <filesystem>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/job_check.h"
#include "client/job_run.h"

namespace lockstep {
namespace {

void CheckKind(const CommandLine& line, v1::Job& job, std::vector<std::string>& errors) {
  if (line.command == Command::kSubmit || line.command == Command::kPlan) {
    if (job.kind() == v1::Job::KIND_UNSPECIFIED) job.set_kind(v1::Job::FIT);
    return;
  }
  const v1::Job::Kind kind = line.command == Command::kFit        ? v1::Job::FIT
                             : line.command == Command::kEvaluate ? v1::Job::EVALUATE
                                                                  : v1::Job::PREDICT;
  if (job.kind() != v1::Job::KIND_UNSPECIFIED && job.kind() != kind) {
    errors.push_back(absl::StrCat(line.job_file, ": kind: the file describes another kind of job than this command runs; use submit"));
  }
  job.set_kind(kind);
}

void ReadPlan(v1::Job& job) {
  job.set_plan_only(true);
  // How long it trains makes no difference to its memory.
  if (job.kind() == v1::Job::FIT && job.length_case() == v1::Job::LENGTH_NOT_SET) job.set_epochs(1);
}

void CheckOutputs(const CommandLine& line, std::vector<std::string>& errors) {
  const auto check = [&errors](const char* flag, const std::string& path) {
    if (path.empty()) return;
    const absl::Status status = CheckOutputFile(path);
    if (!status.ok()) errors.push_back(absl::StrCat(flag, ": ", status.message()));
  };
  check("--out", line.out);
  check("--best-out", line.best_out);
  check("--summary", line.summary);
  check("--svg", line.svg);
  // A log may also go to a pipe or a terminal; opening it tells.
  std::error_code error;
  if (!std::filesystem::exists(line.step_log, error) || std::filesystem::is_directory(line.step_log, error)) {
    check("--step-log", line.step_log);
  }
}

}  // namespace

PreparedJob PrepareJob(const CommandLine& line) {
  JobReader reader(std::filesystem::current_path().string());
  if (!line.job_file.empty()) reader.ReadYamlFile(line.job_file);
  if (!line.model.empty()) reader.ReadModelArgument(line.model);
  for (const GivenFlag& flag : line.flags) reader.ReadFlag(*flag.field, flag.value, flag.shown);
  PreparedJob prepared{reader.draft(), reader.errors()};
  v1::Job& job = prepared.draft.job;
  std::vector<std::string>& errors = prepared.errors;
  CheckKind(line, job, errors);
  if (line.command == Command::kPlan) ReadPlan(job);
  const auto add = [&errors](const std::vector<std::string>& more) { errors.insert(errors.end(), more.begin(), more.end()); };
  // A field that could not be read would be called missing as well.
  if (errors.empty()) add(CheckFields(prepared.draft));
  const bool here = line.connection.coordinator.empty();
  if (here) add(CheckFolders(job));
  if (!prepared.draft.model_path.empty()) {
    if (const absl::Status status = CheckModelFile(prepared.draft.model_path); !status.ok()) {
      errors.emplace_back(status.message());
    } else if (errors.empty()) {
      const auto file = DescribeModelFile(prepared.draft.model_path);
      if (file.ok()) *job.mutable_model() = *file;
      if (!file.ok()) errors.emplace_back(file.status().message());
    }
  }
  CheckOutputs(line, errors);
  if (job.name().empty()) job.set_name(std::filesystem::path(prepared.draft.model_path).stem().string());
  return prepared;
}

void PrintErrors(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) {
    for (const absl::string_view line : absl::StrSplit(error, '\n', absl::SkipEmpty())) {
      std::cerr << "lockstep: " << std::string(line) << "\n";
    }
  }
}

}  // namespace lockstep
