#pragma once
// Puts a job together: first from a YAML file, then from flags, which override it. Pure but for reading the file. Nothing
// stops at the first mistake: every error is kept, with its place and its field, and what would be right.

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/job_fields.h"

namespace lockstep {

class JobReader {
 public:
  // Relative paths in flags are relative to `working_folder`, an absolute path.
  explicit JobReader(std::string working_folder);

  // `text` is the YAML; `file_name` stands in errors. Relative paths in it are relative to `folder`.
  void ReadYaml(std::string_view text, std::string_view file_name, std::string_view folder);
  void ReadYamlFile(const std::string& path);

  // `field`'s flag was given with `value`, in this order; `shown` is the flag as the user knows it ("--data" for "--train").
  void ReadFlag(const JobField& field, const std::string& value, std::string_view shown);
  // The first argument.
  void ReadModelArgument(const std::string& path);

  const JobDraft& draft() const { return draft_; }
  JobDraft& draft() { return draft_; }
  const std::vector<std::string>& errors() const { return errors_; }

 private:
  void ReadMapping(const YAML::Node& mapping, const std::string& path);
  void ReadEntry(const YAML::Node& key, const YAML::Node& value, const std::string& parent, std::vector<std::string>& seen);
  // "FILE:LINE: PATH: MESSAGE".
  void AddError(const YAML::Node& where, const std::string& path, std::string_view message);

  const std::string working_folder_;
  std::string file_name_;
  JobDraft draft_;
  std::vector<std::string> errors_;
  bool epochs_flag_ = false;
  bool steps_flag_ = false;
};

}  // namespace lockstep
