#pragma once
// Every field of a job that a person can give, once: where it stands in the YAML, which flag it is, and how its text becomes
// part of the proto. The YAML reader, the flags, --help and docs/cli.md all go by this table. Thread-safe: no state.

#include <yaml-cpp/yaml.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "proto/job.pb.h"

namespace lockstep {

// A job while it is being put together.
struct JobDraft {
  v1::Job job;
  // Where the model file is, absolute. Empty: none was given.
  std::string model_path;
  // What relative paths are relative to, absolute.
  std::string base_folder;
};

struct JobField {
  // "data.image.size".
  std::string_view path;
  // "--image-size"; empty: YAML only.
  std::string_view flag;
  // For a flag that takes no value: the value it stands for.
  std::string_view implied;
  // How --help calls the value: "HxW".
  std::string_view value_name;
  std::string_view help;
  // Has no meaning for evaluate and predict.
  bool fit_only;
  // InvalidArgument "expected …, got …". A scalar's text is what follows the flag.
  absl::Status (*set)(const YAML::Node& node, JobDraft& draft);
};

// In the order of the documentation.
const std::vector<JobField>& JobFields();

}  // namespace lockstep
