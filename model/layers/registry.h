#pragma once
// Every layer and operation that we know, by Keras's class name; a layer that is not of keras.layers by its module and name.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/layer.h"
#include "model/layer_options.h"

namespace lockstep {

// Makes a layer from its configuration. Problems go into `options`; then the result is not used.
using LayerFactory = std::function<std::unique_ptr<Layer>(LayerOptions& options)>;
using LayerTable = std::map<std::string, LayerFactory>;

// An operation of keras.ops that became a node of the graph. `arguments` are the call's, in order, with {"tensor": k} in place of
// its k-th input tensor; `keywords` likewise.
struct OperationCall {
  Json config, arguments, keywords;
};

// What makes the layers of class `class_name` and of the module that `layer`, its configuration in the archive, has. InvalidArgument if
// none is known, or if the class is not Keras's own, whatever its name.
absl::StatusOr<LayerFactory> FindLayer(const std::string& class_name, const Json& layer);
// Sorted names, for messages.
std::vector<std::string> KnownLayerNames();
std::vector<std::string> KnownOperationNames();
// Null, and a problem, if the operation or its arguments are not known.
std::unique_ptr<Layer> MakeOperation(const std::string& class_name, const OperationCall& call, LayerOptions& options);

// What each source of layers/ adds.
void AddActivationLayers(LayerTable& table);
void AddConvolutionLayers(LayerTable& table);
void AddDenseLayers(LayerTable& table);
void AddMergingLayers(LayerTable& table);
void AddNormalizationLayers(LayerTable& table);
void AddPoolingLayers(LayerTable& table);
void AddPreprocessingLayers(LayerTable& table);
void AddRegularizationLayers(LayerTable& table);
void AddReshapingLayers(LayerTable& table);

}  // namespace lockstep
