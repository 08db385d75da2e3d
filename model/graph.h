#pragma once
// The graph in a `.keras` file's configuration, flat: layers, and their calls in the order of execution. Models within models are
// dissolved into the calls of their layers.
//
// Where it stands: between the archive's JSON and Model, which adds variables and runs it. Built by one thread, then constant.

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/layer.h"

namespace lockstep {

struct GraphLayer {
  std::string name;        // with the models around it: "backbone/block1_conv"
  std::string hdf5_group;  // "layers/conv2d_1"
  std::unique_ptr<Layer> layer;
  bool trainable = true;  // it and every model around it
  std::vector<VariableSpec> variables;
  int first_variable = 0;  // in the order of all variables
  int calls = 0;
};

// values[output] = layers[layer](values[inputs]).
struct GraphCall {
  int layer = 0;
  std::string name;
  std::vector<int> inputs;
  int output = 0;
  std::vector<bool> last_use;  // by input: nobody uses the value afterwards
  int follower = -1;           // a layer that computes on what `layer` makes, in the same pass; −1: none
};

struct Graph {
  std::string name;
  std::vector<GraphLayer> layers;  // in Keras's order
  std::vector<GraphCall> calls;
  int values = 0;
  int input = 0;
  int output = 0;
  Shape input_shape, output_shape;  // with the batch axis
  bool rescales_input = false;
};

// The names of the dtype policies of all layers, models within models included: "float32", "mixed_float16" … Inputs have none.
std::set<std::string> DtypePolicies(const Json& config);

// InvalidArgument with every problem, a line each. `fuse`: activations and padding are taken into the layers before and after.
absl::StatusOr<Graph> ReadGraph(const Json& config, bool fuse);

}  // namespace lockstep
