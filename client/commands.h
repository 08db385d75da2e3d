#pragma once
// The commands that speak to a running coordinator.

#include "client/command_line.h"

namespace lockstep {

// Every command but fit, evaluate, predict and plan. Returns the exit status.
int RunCommand(const CommandLine& line);

}  // namespace lockstep
