#pragma once
// The setters of the fields below "data." for the table of job_fields.h. Thread-safe: no state.

#include "client/job_fields.h"

namespace lockstep {

// From the draft's folder, where it is relative.
std::string AbsolutePath(const std::string& path, const JobDraft& draft);

absl::Status SetTrain(const YAML::Node& node, JobDraft& draft);
absl::Status SetValidation(const YAML::Node& node, JobDraft& draft);
absl::Status SetImageSize(const YAML::Node& node, JobDraft& draft);
absl::Status SetMethod(const YAML::Node& node, JobDraft& draft);
absl::Status SetAntialias(const YAML::Node& node, JobDraft& draft);
absl::Status SetScale(const YAML::Node& node, JobDraft& draft);
absl::Status SetMean(const YAML::Node& node, JobDraft& draft);
absl::Status SetStd(const YAML::Node& node, JobDraft& draft);
absl::Status SetFullDecode(const YAML::Node& node, JobDraft& draft);
absl::Status SetLastBatch(const YAML::Node& node, JobDraft& draft);
absl::Status SetSkipBad(const YAML::Node& node, JobDraft& draft);
absl::Status SetDataMemory(const YAML::Node& node, JobDraft& draft);
absl::Status SetShuffle(const YAML::Node& node, JobDraft& draft);
absl::Status SetDecodeThreads(const YAML::Node& node, JobDraft& draft);

}  // namespace lockstep
