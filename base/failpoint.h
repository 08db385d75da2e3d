#pragma once
// Points at which a test makes a process die, stop, wait, or see an error. docs/reliability.md lists them.
//
//   LOCKSTEP_FAILPOINTS=NAME=ACTION[@N][xM],…   at the Nth time that a process comes by (1), M times in all processes together (1)
//   LOCKSTEP_FAILPOINT_DIR=DIR                  where it is noted how often one was hit; needed
//
// Actions: slow:MS (every time, without counting), kill and stop (the signals, to the process itself), exit (status 3), delay:MS, error.
// Unset, a point costs a load and a branch. Thread-safe.

#include <cstdint>
#include <string_view>

namespace lockstep {

// True: the point's action is `error`, and now is the time for it.
bool FailpointHit(std::string_view name);
bool FailpointsAreSet();
// For tests of one process: in place of what the environment says of this point; it fires once, and needs no folder. Empty: nothing.
void SetFailpoint(std::string_view name, std::string_view action);
// For points that have conditions of their own: takes one firing of `most` that all processes share. False where none is left, or where
// LOCKSTEP_FAILPOINT_DIR is not set.
bool ClaimFailpoint(std::string_view name, uint64_t most = 1);

// In code: `if (LOCKSTEP_FAILPOINT("trainer.before_update")) return absl::InternalError(…)`, or as a statement.
#define LOCKSTEP_FAILPOINT(name) (::lockstep::FailpointsAreSet() && ::lockstep::FailpointHit(name))

}  // namespace lockstep
