#pragma once
// The page for people at "/": jobs, how far they are, workers. Plain HTML that reloads itself; no scripts, nothing from
// elsewhere. Pure function.

#include <string>

#include "absl/time/time.h"
#include "coordinator/coordinator.h"

namespace lockstep {

// Everything that users wrote is escaped.
std::string Page(const Snapshot& snapshot, const std::string& version, absl::Time now);

}  // namespace lockstep
