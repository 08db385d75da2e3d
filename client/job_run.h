#pragma once
// fit, evaluate, predict and plan: from the command line to the result on disk, on an embedded cluster or on a running one.

#include <memory>
#include <string>
#include <vector>

#include "client/command_line.h"
#include "client/job_reader.h"

namespace lockstep {

// The job that the command line describes, checked as far as this machine can: `errors` holds everything that is wrong.
struct PreparedJob {
  JobDraft draft;
  std::vector<std::string> errors;
};
// REQUIRES: the command is fit, evaluate, predict, plan or submit.
PreparedJob PrepareJob(const CommandLine& line);

// Prints each error, "lockstep: " before each of its lines.
void PrintErrors(const std::vector<std::string>& errors);

// Returns the exit status.
int RunJob(const CommandLine& line);

}  // namespace lockstep
