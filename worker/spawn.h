#pragma once
// Starts a trainer's process. The child gets a control socket, its standard output and error on a pipe, a process group of its
// own, default signals, and nothing else that is open here. It dies with the thread that called this (PR_SET_PDEATHSIG follows
// the thread, not the process), which therefore has to live as long as the worker.
//
// Safe in a process with threads: between vfork and exec the child makes system calls only. Thread-safe: no state.

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "base/file_descriptor.h"

namespace lockstep {

struct ChildProcess {
  pid_t pid = -1;
  FileDescriptor pidfd;    // readable once the process has ended
  FileDescriptor control;  // our end of the socket pair; does not block
  FileDescriptor output;   // what it writes to standard output and error; does not block
};

// Runs `program --control-fd 3` in `folder`. NotFound or PermissionDenied name the program that cannot be run.
absl::StatusOr<ChildProcess> SpawnTrainer(const std::string& program, const std::string& folder);

}  // namespace lockstep
