#include "model/layers/registry.h"

namespace lockstep {

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

std::vector<std::string> KnownLayerNames() {
  std::vector<std::string> names = {"InputLayer", "Functional", "Sequential"};
  for (const auto& [name, factory] : KnownLayers()) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace lockstep
