#pragma once
// From segments that were chosen by what they cost (memory/segments.h) to what a job records. Pure functions. No libtorch.

#include <string>

#include "memory/segments.h"
#include "model/segment.h"

namespace lockstep {

Recomputation ToRecomputation(const memory::Choice& choice);

// "16 of 126 layers computed again in backward".
std::string ComputedAgainText(const Recomputation& recompute, size_t calls_of_graph);

}  // namespace lockstep
