#pragma once
// Passes over a graph that leave its meaning: what is memory traffic and nothing else is taken into the layers beside it.

#include "model/graph.h"

namespace lockstep {

// BatchNormalization and Add take a ReLU that follows and is their only user; convolutions take the ZeroPadding2D
// before them; a BatchNormalization whose only user is a depthwise convolution takes that. The calls that were taken vanish.
void Fuse(Graph& graph);

// Fills GraphCall::last_use, so that Forward can let go of values.
void MarkLastUses(Graph& graph);

}  // namespace lockstep
