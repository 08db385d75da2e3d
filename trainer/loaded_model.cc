#include "trainer/loaded_model.h"

#include <ATen/Version.h>
#include <torch/version.h>
#include <xmmintrin.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/graph.h"
#include "trainer/process_figures.h"

namespace lockstep {

std::string DtypePolicyOf(const KerasArchive& archive) {
  const std::set<std::string> policies = DtypePolicies(archive.config());
  return policies.empty() ? "float32" : absl::StrJoin(policies, " and ");
}

absl::StatusOr<LoadedModel> LoadModel(const std::string& path, const std::string& precision) {
  LoadedModel loaded;
  ASSIGN_OR_RETURN(loaded.archive, KerasArchive::Open(path));
  const std::string policy = precision.empty() ? DtypePolicyOf(*loaded.archive) : precision;
  if (policy != "float32" && policy != "float64") {
    return absl::InvalidArgumentError(absl::StrCat("precision: \"", policy,
                                                   "\" is not supported; float32 and float64 are "
                                                   "(set precision: float32 in the job to override the model's own policy)"));
  }
  Model::Options options;
  options.dtype = policy == "float64" ? at::kDouble : at::kFloat;
  ASSIGN_OR_RETURN(loaded.model, Model::Load(*loaded.archive, options));
  return loaded;
}

absl::StatusOr<Recipe> ReadJobRecipe(const RunSpec& spec, const LoadedModel& loaded, int64_t classes) {
  Recipe recipe;
  if (spec.kind == JobKind::kPredict) {
    recipe.optimizer.kind = OptimizerKind::kSgd;
    return recipe;
  }
  RecipeOverrides overrides{spec.optimizer, spec.learning_rate, spec.loss, spec.metrics};
  if (spec.kind == JobKind::kEvaluate) overrides.optimizer = "sgd", overrides.learning_rate.reset();
  const std::vector<int64_t>& shape = loaded.model->output_shape();
  const OutputShape output{shape.empty() ? 0 : shape.back(), static_cast<int64_t>(shape.size()) + 1, classes};
  return ReadRecipe(loaded.archive->compile_config(), overrides, output);
}

std::map<std::string, std::string> ComputeEnvironment() {
  std::map<std::string, std::string> environment = ProcessorEnvironment();
  environment["lockstep"] = LOCKSTEP_VERSION;
  environment["libtorch"] = TORCH_VERSION;
  environment["cpu_capability"] = at::get_cpu_capability();
  environment["onednn"] = at::get_mkldnn_version();
  environment["device"] = "cpu";
  environment["denormals"] = (_mm_getcsr() & 0x8040) == 0 ? "kept" : "flushed";
  return environment;
}

}  // namespace lockstep
