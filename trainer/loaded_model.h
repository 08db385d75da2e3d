#pragma once
// A submitted model, opened and understood: what planning and training begin with. Includes libtorch through the model.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/keras_archive.h"
#include "model/model.h"
#include "model/training/compile_config.h"
#include "trainer/run_spec.h"

namespace lockstep {

struct LoadedModel {
  std::unique_ptr<KerasArchive> archive;
  std::unique_ptr<Model> model;
};

// "float32", "float64" or what else the archive's layers say; "float32" where they say nothing.
std::string DtypePolicyOf(const KerasArchive& archive);

// `precision` is the job's, or empty for the archive's policy. InvalidArgument with everything that is wrong with the file.
absl::StatusOr<LoadedModel> LoadModel(const std::string& path, const std::string& precision);

// How to train it. PREDICT needs no loss, and only FIT an optimizer: what is not needed need not be there.
absl::StatusOr<Recipe> ReadJobRecipe(const RunSpec& spec, const LoadedModel& loaded, int64_t classes);

// What must be equal on all ranks for the same bits, by name.
std::map<std::string, std::string> ComputeEnvironment();

}  // namespace lockstep
