#include "client/data_fields.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/field_values.h"

namespace lockstep {

std::string AbsolutePath(const std::string& path, const JobDraft& draft) {
  return (std::filesystem::path(draft.base_folder) / path).lexically_normal().string();
}

absl::Status SetTrain(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::string path, Text(node));
  draft.job.mutable_data()->mutable_train()->set_folder(AbsolutePath(path, draft));
  return absl::OkStatus();
}

absl::Status SetValidation(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::string path, Text(node));
  draft.job.mutable_data()->mutable_validation()->set_folder(AbsolutePath(path, draft));
  return absl::OkStatus();
}

absl::Status SetImageSize(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::vector<uint32_t> size, HeightAndWidth(node));
  draft.job.mutable_data()->mutable_image()->set_height(size[0]);
  draft.job.mutable_data()->mutable_image()->set_width(size[1]);
  return absl::OkStatus();
}

absl::Status SetMethod(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(*draft.job.mutable_data()->mutable_image()->mutable_method(), OneOf(node, {"nearest", "bilinear", "bicubic", "area"}));
  return absl::OkStatus();
}

absl::Status SetAntialias(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const bool antialias, TrueOrFalse(node));
  draft.job.mutable_data()->mutable_image()->set_antialias(antialias);
  return absl::OkStatus();
}

absl::Status SetScale(const YAML::Node& node, JobDraft& draft) {
  v1::Image& image = *draft.job.mutable_data()->mutable_image();
  if (node.IsScalar() && node.Scalar() == "auto") {
    image.clear_scale();
    return absl::OkStatus();
  }
  const absl::StatusOr<double> scale = Number(node);
  if (!scale.ok()) return absl::InvalidArgumentError(absl::StrCat(scale.status().message(), " (or auto)"));
  image.set_scale(*scale);
  return absl::OkStatus();
}

absl::Status SetMean(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::vector<double> mean, Numbers(node));
  draft.job.mutable_data()->mutable_image()->mutable_mean()->Assign(mean.begin(), mean.end());
  return absl::OkStatus();
}

absl::Status SetStd(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::vector<double> std, Numbers(node));
  draft.job.mutable_data()->mutable_image()->mutable_std()->Assign(std.begin(), std.end());
  return absl::OkStatus();
}

absl::Status SetFullDecode(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const bool full, TrueOrFalse(node));
  draft.job.mutable_data()->mutable_image()->set_full_decode(full);
  return absl::OkStatus();
}

absl::Status SetLastBatch(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const std::string last, OneOf(node, {"use", "drop"}));
  draft.job.mutable_data()->set_last_batch(last == "use" ? v1::Data::USE : v1::Data::DROP);
  return absl::OkStatus();
}

absl::Status SetSkipBad(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t skip, WholeNumber(node, 0, UINT64_MAX));
  draft.job.mutable_data()->mutable_bad_samples()->set_skip(skip);
  return absl::OkStatus();
}

absl::Status SetDataMemory(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t bytes, Size(node));
  draft.job.mutable_data()->set_memory_bytes(bytes);
  return absl::OkStatus();
}

absl::Status SetShuffle(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const bool shuffle, TrueOrFalse(node));
  draft.job.mutable_data()->set_no_shuffle(!shuffle);
  return absl::OkStatus();
}

absl::Status SetDecodeThreads(const YAML::Node& node, JobDraft& draft) {
  ASSIGN_OR_RETURN(const uint64_t threads, WholeNumber(node, 1, 1024));
  draft.job.mutable_data()->set_decode_threads(static_cast<uint32_t>(threads));
  return absl::OkStatus();
}

}  // namespace lockstep
