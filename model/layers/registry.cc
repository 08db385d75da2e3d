#include "model/layers/registry.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

const LayerTable& KnownLayers() {
  static const LayerTable& table = *[] {
    auto* made = new LayerTable;
    AddActivationLayers(*made);
    AddConvolutionLayers(*made);
    AddDenseLayers(*made);
    AddMergingLayers(*made);
    AddNormalizationLayers(*made);
    AddPoolingLayers(*made);
    AddPreprocessingLayers(*made);
    AddRegularizationLayers(*made);
    AddReshapingLayers(*made);
    return made;
  }();
  return table;
}

}  // namespace

absl::StatusOr<LayerFactory> FindLayer(const std::string& class_name, const Json& layer) {
  const std::string module = layer.value("module", std::string());
  const Json registered = layer.value("registered_name", Json());
  const bool packaged = registered.is_string() && absl::StrContains(registered.get<std::string>(), '>');  // somebody's "package>Class"
  if (packaged || !(module.empty() || module == "keras" || absl::StartsWith(module, "keras."))) {
    return absl::InvalidArgumentError(absl::StrCat("this layer of \"", module, "\" is not Keras's own: its code is not in the file"));
  }
  auto found = KnownLayers().find(absl::StrCat(module, ".", class_name));
  if (found == KnownLayers().end()) found = KnownLayers().find(class_name);
  if (found == KnownLayers().end()) return absl::InvalidArgumentError("this layer is not known");
  return found->second;
}

std::vector<std::string> KnownLayerNames() {
  std::vector<std::string> names = {"InputLayer", "Functional", "Sequential"};
  for (const auto& [name, factory] : KnownLayers()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace lockstep
