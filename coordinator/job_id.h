#pragma once
// Ids of jobs: "j" and the second of submission, in digits that people do not confuse. Sorted as text they are in the order of
// submission. Pure functions.

#include <cstdint>
#include <string>

namespace lockstep {

// REQUIRES: 0 <= number < 2^35. Seven of Crockford's base-32 digits behind a "j".
std::string JobIdOf(int64_t number);
// The number of an id; -1: it is none.
int64_t NumberOfJobId(const std::string& id);

}  // namespace lockstep
