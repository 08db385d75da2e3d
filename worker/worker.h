#pragma once
// A worker from its first flag to its last word: state folder, metrics, supervisor, the link to the coordinator, and the signals that end
// it.

#include "absl/status/status.h"
#include "worker/worker_options.h"

namespace lockstep {

// Exit codes of lockstep-worker.
inline constexpr int kExitDrained = 0;
inline constexpr int kExitFailed = 1;
// It cannot start, or the coordinator will not have it: trying again does not help.
inline constexpr int kExitRefused = 2;

// Runs until SIGTERM or SIGINT, then drains; or until the coordinator refuses this worker. REQUIRES: called once, from main,
// before any thread was made; SIGPIPE is ignored. The returned value is the process's exit code; what went wrong was logged.
int RunWorker(WorkerOptions options);

}  // namespace lockstep
