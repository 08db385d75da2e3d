#pragma once
// What the program's exit status tells a script. docs/cli.md promises it. Thread-safe: no state.

#include "absl/status/status.h"
#include "proto/progress.pb.h"

namespace lockstep {

enum ExitCode : int {
  kExitDone = 0,
  kExitFailed = 1,
  kExitBadInput = 2,
  kExitOutOfMemory = 3,
  kExitInterrupted = 130,
};

// Of a job that has ended. REQUIRES: `state` is REFUSED, DONE, FAILED or CANCELLED.
ExitCode ExitCodeOf(v1::JobState state, v1::FailureKind failure);

// Of a call: what the user can mend by other input is kExitBadInput (a bad job, no such job or file, a wrong token, a job not
// in a state for this), OK is kExitDone, the rest is kExitFailed.
ExitCode ExitCodeOf(const absl::Status& status);

}  // namespace lockstep
