#include "client/job_reader.h"

#include <algorithm>
#include <filesystem>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "client/nearest.h"

namespace lockstep {
namespace {

std::string Join(const std::string& parent, const std::string& key) { return parent.empty() ? key : absl::StrCat(parent, ".", key); }

const JobField* FindField(std::string_view path) {
  const auto& fields = JobFields();
  const auto found = absl::c_find_if(fields, [path](const JobField& field) { return field.path == path; });
  return found == fields.end() ? nullptr : &*found;
}

// The keys that a mapping at `path` may hold.
std::vector<std::string> KeysOf(const std::string& path) {
  const std::string prefix = path.empty() ? "" : absl::StrCat(path, ".");
  std::vector<std::string> keys;
  for (const JobField& field : JobFields()) {
    if (!field.path.starts_with(prefix)) continue;
    const std::string_view rest = field.path.substr(prefix.size());
    const std::string key(rest.substr(0, rest.find('.')));
    if (!absl::c_linear_search(keys, key)) keys.push_back(key);
  }
  return keys;
}

}  // namespace

JobReader::JobReader(std::string working_folder) : working_folder_(std::move(working_folder)) { draft_.base_folder = working_folder_; }

void JobReader::AddError(const YAML::Node& where, const std::string& path, std::string_view message) {
  const YAML::Mark mark = where.Mark();
  const std::string line = mark.is_null() ? "" : absl::StrCat(":", mark.line + 1);
  errors_.push_back(absl::StrCat(file_name_, line, ": ", path, path.empty() ? "" : ": ", std::string(message)));
}

void JobReader::ReadYamlFile(const std::string& path) {
  const auto text = ReadFile(path);
  if (!text.ok()) {
    errors_.push_back(std::string(text.status().message()));
    return;
  }
  const std::filesystem::path absolute = std::filesystem::path(working_folder_) / path;
  ReadYaml(*text, path, absolute.lexically_normal().parent_path().string());
}

void JobReader::ReadYaml(std::string_view text, std::string_view file_name, std::string_view folder) {
  file_name_ = file_name;
  draft_.base_folder = folder;
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(std::string(text));
    if (documents.size() > 1) AddError(documents[1], "", "a second document; a job is one");
    if (!documents.empty() && documents[0].IsMap()) {
      ReadMapping(documents[0], "");
    } else if (!documents.empty() && !documents[0].IsNull()) {
      AddError(documents[0], "", absl::StrCat("expected a mapping with keys like ", absl::StrJoin(KeysOf(""), ", ")));
    }
  } catch (const YAML::Exception& error) {
    errors_.push_back(absl::StrCat(file_name_, ":", error.mark.line + 1, ": not YAML: ", error.msg));
  }
  draft_.base_folder = working_folder_;
}

void JobReader::ReadMapping(const YAML::Node& mapping, const std::string& path) {
  std::vector<std::string> seen;
  for (const auto& entry : mapping) ReadEntry(entry.first, entry.second, path, seen);
  if (path.empty() && absl::c_linear_search(seen, "epochs") && absl::c_linear_search(seen, "steps")) {
    AddError(mapping["steps"], "steps", "epochs and steps cannot both be given; drop one of them");
  }
}

void JobReader::ReadEntry(const YAML::Node& key, const YAML::Node& value, const std::string& parent, std::vector<std::string>& seen) {
  const std::string name = key.IsScalar() ? key.Scalar() : "?";
  const std::string path = Join(parent, name);
  if (absl::c_linear_search(seen, name)) {
    AddError(key, path, "given twice");
    return;
  }
  seen.push_back(name);
  const std::vector<std::string> known = KeysOf(parent);
  if (!absl::c_linear_search(known, name)) {
    AddError(key, path, absl::StrCat("unknown key; ", DidYouMean(name, known)));
    return;
  }
  const JobField* field = FindField(path);
  const std::vector<std::string> below = KeysOf(path);
  if (value.IsMap() && !below.empty()) {
    ReadMapping(value, path);
  } else if (field == nullptr) {
    AddError(value.IsDefined() && !value.IsNull() ? value : key, path,
             absl::StrCat("expected a mapping with ", absl::StrJoin(below, ", ")));
  } else if (const absl::Status status = field->set(value, draft_); !status.ok()) {
    const absl::string_view message = status.message();
    AddError(key, path, std::string_view(message.data(), message.size()));
  }
}

void JobReader::ReadFlag(const JobField& field, const std::string& value, std::string_view shown) {
  const absl::Status status = field.set(YAML::Node(value), draft_);
  if (!status.ok()) errors_.push_back(absl::StrCat(std::string(shown), ": ", status.message()));
  epochs_flag_ = epochs_flag_ || field.path == "epochs";
  steps_flag_ = steps_flag_ || field.path == "steps";
  const bool second_length = field.path == "epochs" || field.path == "steps";
  if (second_length && epochs_flag_ && steps_flag_) {
    errors_.push_back("--steps: --epochs and --steps cannot both be given; drop one of them");
  }
}

void JobReader::ReadModelArgument(const std::string& path) { ReadFlag(*FindField("model"), path, "MODEL"); }

}  // namespace lockstep
