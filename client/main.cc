// lockstep: the command line. docs/cli.md says what it does.

#include "client/command_line.h"
#include "client/commands.h"
#include "client/job_run.h"

int main(int argc, char** argv) {
  using lockstep::Command;
  const auto parsed = lockstep::ParseCommandLine(argc, argv);
  if (const int* exit_code = std::get_if<int>(&parsed)) return *exit_code;
  const auto& line = std::get<lockstep::CommandLine>(parsed);
  switch (line.command) {
    case Command::kFit:
    case Command::kEvaluate:
    case Command::kPredict:
    case Command::kPlan: return lockstep::RunJob(line);
    default: return lockstep::RunCommand(line);
  }
}
