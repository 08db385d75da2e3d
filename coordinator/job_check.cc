#include "coordinator/job_check.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep {
namespace {

constexpr uint32_t kMostThreads = 1024;
constexpr uint32_t kMostSide = 65'535;
constexpr uint32_t kMostVirtualReplicas = 4096;
constexpr size_t kLongestName = 200;
constexpr size_t kDigestDigits = 32;

// Gathers errors; each check says what must hold and what would be right.
class Checker {
 public:
  explicit Checker(const v1::Job& job) : job_(job) {}

  std::vector<std::string> Run() {
    Require(job_.name().size() <= kLongestName, "name", absl::StrCat("is ", job_.name().size(), " bytes long; at most ", kLongestName));
    CheckModel();
    CheckFolders();
    Require(job_.device() != v1::Job::CUDA || job_.plan_only(), "device",
            "nothing can be run on cuda yet, only planned (plan_only); leave it out to run on cpu");
    Require(v1::Job::Device_IsValid(job_.device()), "device", absl::StrCat(job_.device(), " is none that is known"));
    CheckLength();
    CheckReplicas();
    CheckImage(job_.data().image());
    CheckMemory(job_.memory());
    OneOf(job_.precision(), {"", "float32", "float64"}, "precision");
    if (job_.has_learning_rate()) Positive(job_.learning_rate(), "learning_rate");
    for (const std::string& metric : job_.metrics()) Require(!metric.empty(), "metrics", "has an empty name; leave it out");
    Require(job_.data().decode_threads() <= kMostThreads, "data.decode_threads", absl::StrCat("is above ", kMostThreads));
    CheckCallbacks();
    return std::move(errors_);
  }

 private:
  void Require(bool holds, absl::string_view field, absl::string_view otherwise) {
    if (!holds) errors_.push_back(absl::StrCat(field, ": ", otherwise));
  }

  void OneOf(const std::string& word, std::initializer_list<absl::string_view> known, absl::string_view field) {
    if (std::find(known.begin(), known.end(), word) != known.end()) return;
    std::vector<absl::string_view> words(known);
    words.erase(std::remove(words.begin(), words.end(), absl::string_view()), words.end());
    errors_.push_back(absl::StrCat(field, ": \"", word, "\" is none of ", absl::StrJoin(words, ", ")));
  }

  void Positive(double value, absl::string_view field) {
    Require(std::isfinite(value) && value > 0, field, absl::StrCat("is ", value, "; give a number above 0"));
  }

  void NotNegative(double value, absl::string_view field) {
    Require(std::isfinite(value) && value >= 0, field, absl::StrCat("is ", value, "; give 0 or more"));
  }

  bool Fits() const { return job_.kind() == v1::Job::FIT || job_.kind() == v1::Job::KIND_UNSPECIFIED; }

  void CheckModel() {
    const v1::ModelFile& model = job_.model();
    Require(!model.file_name().empty(), "model", "is missing; name a .keras file");
    if (model.file_name().empty()) return;
    Require(absl::EndsWith(model.file_name(), ".keras") && !absl::StrContains(model.file_name(), '/'), "model",
            absl::StrCat("\"", model.file_name(), "\" is not the base name of a .keras file"));
    Require(model.size_bytes() > 0, "model", absl::StrCat(model.file_name(), " is empty"));
    const std::string& digest = model.xxh3_128();
    Require(digest.size() == kDigestDigits && std::all_of(digest.begin(), digest.end(), absl::ascii_isxdigit), "model.xxh3_128",
            "is not a checksum of 32 hexadecimal digits");
  }

  void CheckFolder(const std::string& folder, absl::string_view field) {
    if (folder.empty()) {
      errors_.push_back(absl::StrCat(field, ": is missing; give the absolute path of a folder of class folders"));
    } else {
      Require(folder.front() == '/', field, absl::StrCat("\"", folder, "\" is relative; give an absolute path, as the workers see it"));
    }
  }

  void CheckFolders() {
    CheckFolder(job_.data().train().folder(), Fits() ? "data.train" : "data");
    if (!job_.data().has_validation()) return;
    if (Fits()) {
      CheckFolder(job_.data().validation().folder(), "data.validation");
    } else {
      errors_.emplace_back("data.validation: belongs to training; leave it out");
    }
  }

  void CheckLength() {
    Require(job_.batch() > 0, "batch", "is missing; give the samples of one step over all virtual replicas, above 0");
    if (Fits()) {
      Require(job_.epochs() > 0 || job_.steps() > 0, "epochs", "is missing; give epochs or steps, above 0");
    } else {
      Require(job_.epochs() == 0 && job_.steps() == 0, job_.has_steps() ? "steps" : "epochs",
              "belongs to training; an evaluation is one pass over the data");
    }
    const uint32_t v = job_.virtual_replicas();
    Require(v <= kMostVirtualReplicas, "virtual_replicas", absl::StrCat("is ", v, "; at most ", kMostVirtualReplicas));
    if (v == 0 || job_.batch() == 0) {
      Require(job_.batch() == 0 || job_.micro_batch() <= job_.batch(), "micro_batch",
              absl::StrCat("is ", job_.micro_batch(), ", above the batch of ", job_.batch()));
      return;
    }
    Require(job_.batch() % v == 0, "virtual_replicas", absl::StrCat(v, " does not divide the batch of ", job_.batch()));
    Require(job_.micro_batch() <= std::max(job_.batch() / v, 1u), "micro_batch",
            absl::StrCat("is ", job_.micro_batch(), ", above the ", job_.batch() / v, " samples of a virtual replica"));
  }

  void CheckReplicas() {
    const v1::Replicas& replicas = job_.replicas();
    Require(replicas.max() == 0 || replicas.min() <= replicas.max(), "replicas",
            absl::StrCat("min ", replicas.min(), " is above max ", replicas.max()));
    const uint32_t v = job_.virtual_replicas();
    Require(v == 0 || replicas.min() <= v, "replicas.min",
            absl::StrCat("is ", replicas.min(), ", above the ", v,
                         " virtual replicas, of which every replica computes at least one; fewer replicas, or more virtual_replicas"));
    Require(replicas.threads() <= kMostThreads, "replicas.threads", absl::StrCat("is above ", kMostThreads));
  }

  void CheckChannels(const google::protobuf::RepeatedField<double>& values, absl::string_view field) {
    Require(values.empty() || values.size() == 1 || values.size() == 3, field, absl::StrCat("has ", values.size(), " values; give 1 or 3"));
    Require(std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }), field,
            "has a value that is not finite");
  }

  void CheckImage(const v1::Image& image) {
    OneOf(image.method(), {"", "nearest", "bilinear", "bicubic", "area"}, "data.image.method");
    Require(image.height() <= kMostSide && image.width() <= kMostSide, "data.image.size",
            absl::StrCat(image.height(), " × ", image.width(), " is above ", kMostSide));
    if (image.has_scale()) {
      Require(std::isfinite(image.scale()) && image.scale() != 0, "data.image.scale",
              absl::StrCat("is ", image.scale(), "; give a number other than 0, or leave it out"));
    }
    CheckChannels(image.mean(), "data.image.mean");
    CheckChannels(image.std(), "data.image.std");
    Require(std::all_of(image.std().begin(), image.std().end(), [](double value) { return value > 0; }), "data.image.std",
            "has a value that is not above 0");
  }

  void CheckMemory(const v1::MemoryPolicy& memory) {
    for (const std::string& remedy : memory.allow()) OneOf(remedy, {"micro_batch"}, "memory.allow");
    OneOf(memory.remedies(), {"", "auto", "none"}, "memory.remedies");
    Require(memory.tensor_bytes() == 0 && !memory.has_recompute() && memory.next().empty() && memory.step_bytes_per_sample() == 0, "memory",
            "tensor_bytes, recompute, next and step_bytes_per_sample are what planning finds; leave them out");
  }

  void CheckMode(const std::string& mode, absl::string_view field) { OneOf(mode, {"", "min", "max", "auto"}, field); }

  void CheckCallbacks() {
    CheckMode(job_.checkpoint().mode(), "checkpoint.mode");
    const v1::CheckpointPolicy& policy = job_.checkpoint();
    const int intervals = (policy.every_steps() > 0 ? 1 : 0) + (policy.every_seconds() > 0 ? 1 : 0) + (policy.never() ? 1 : 0);
    Require(intervals <= 1, "checkpoint.every", "steps, seconds and never exclude each other");
    Require(Fits() || (intervals == 0 && policy.keep() == 0 && policy.folder().empty()), "checkpoint", "belongs to training; leave it out");
    Require(policy.folder().empty() || policy.folder().front() == '/', "checkpoint.folder",
            absl::StrCat("\"", policy.folder(), "\" is relative; give an absolute path, as the workers see it"));
    Require(policy.folder().empty() || !policy.never(), "checkpoint.folder", "has no meaning where checkpoint.every is never");
    Require(Fits() || job_.checkpoint().best().empty(), "checkpoint.best", "belongs to training; leave it out");
    if (job_.has_stop_early()) {
      const v1::StopEarly& stop = job_.stop_early();
      Require(Fits(), "stop_early", "belongs to training; leave it out");
      Require(!stop.metric().empty(), "stop_early.metric", "is missing; \"val_loss\", for example");
      NotNegative(stop.min_delta(), "stop_early.min_delta");
      CheckMode(stop.mode(), "stop_early.mode");
      Require(!stop.has_baseline() || std::isfinite(stop.baseline()), "stop_early.baseline", "is not finite");
    }
    if (job_.has_reduce_on_plateau()) {
      const v1::ReduceOnPlateau& plateau = job_.reduce_on_plateau();
      Require(Fits(), "reduce_on_plateau", "belongs to training; leave it out");
      Require(!plateau.metric().empty(), "reduce_on_plateau.metric", "is missing; \"val_loss\", for example");
      Require(plateau.factor() >= 0 && plateau.factor() < 1, "reduce_on_plateau.factor",
              absl::StrCat("is ", plateau.factor(), "; give a number between 0 and 1"));
      NotNegative(plateau.min_delta(), "reduce_on_plateau.min_delta");
      NotNegative(plateau.min_learning_rate(), "reduce_on_plateau.min_learning_rate");
      CheckMode(plateau.mode(), "reduce_on_plateau.mode");
    }
  }

  const v1::Job& job_;
  std::vector<std::string> errors_;
};

}  // namespace

std::vector<std::string> CheckJob(const v1::Job& job) { return Checker(job).Run(); }

std::vector<std::string> JobNotes(const v1::Job& job) {
  const uint32_t v = job.virtual_replicas();
  if (v == 0 || job.replicas().max() <= v) return {};
  return {absl::StrCat("replicas.max: ", job.replicas().max(), " is capped to the ", v,
                       " virtual replicas, of which every replica computes at least one")};
}

bool IsPlainFileName(const std::string& name) {
  if (name.empty() || name.size() > kLongestName || name.front() == '.') return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return absl::ascii_isalnum(c) || absl::StrContains("._-+ ", static_cast<char>(c)); });
}

}  // namespace lockstep
