#pragma once
// The command line as data: which command, and everything that was given. Not thread-safe: for main.

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "client/job_fields.h"
#include "rpc/options.h"

namespace lockstep {

enum class Command {
  kFit,
  kEvaluate,
  kPredict,
  kPlan,
  kSubmit,
  kList,
  kDescribe,
  kWatch,
  kCancel,
  kLedger,
  kPause,
  kResume,
  kScale,
  kDownload,
  kLogs,
  kWorkers,
  kVersion
};

// A flag of a job's field.
struct GivenFlag {
  const JobField* field;
  std::string value;
  // As the user knows it: "--data", where the table says "--train".
  std::string shown;
};

struct CommandLine {
  Command command = Command::kVersion;
  // Which coordinator; none: an embedded one, for commands that can.
  ClientFlags connection;
  bool json = false;

  // Of fit, evaluate, predict, plan and submit.
  std::string model;
  std::string job_file;
  std::vector<GivenFlag> flags;
  std::string out;
  std::string best_out;
  std::string step_log;
  std::string summary;
  // Of plan.
  std::string svg;
  // Of submit, watch and logs.
  bool wait_plan = false;
  bool follow = false;

  // Of the commands about one job.
  std::string job_id;
  std::string artifact;
  uint64_t after_sequence = 0;
  // Of ledger.
  uint32_t epoch = 0;
  bool verify = false;
  std::string data_folder;
  std::string ledger_file, index_file;
  // Of scale.
  uint32_t fewest = 0, most = 0;
  // Of list.
  uint32_t limit = 0;
};

// The exit status instead, if everything was said already: --help, --version, or a mistake.
std::variant<CommandLine, int> ParseCommandLine(int argc, const char* const* argv);

}  // namespace lockstep
