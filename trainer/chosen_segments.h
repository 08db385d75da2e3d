#pragma once
// From segments that were chosen by what they cost (memory/segments.h) to what a job records. Pure functions. No libtorch.

#include <cstdint>
#include <string>
#include <vector>

#include "memory/segments.h"
#include "model/segment.h"

namespace lockstep {

Recomputation ToRecomputation(const memory::Choice& choice);

// Where a pass takes `now` bytes, of which `beyond` are in no call's costs: what takes three quarters, half, and the least, each only where
// it is smaller by 2 % than the one before.
std::vector<Recomputation> SmallerChoices(const memory::PassCosts& costs, int64_t now, int64_t beyond, memory::Choice least);

// "16 of 126 layers computed again in backward".
std::string ComputedAgainText(const Recomputation& recompute, size_t calls_of_graph);

}  // namespace lockstep
