#include "worker/worker_options.h"

#include <unistd.h>

#include <filesystem>
#include <map>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "rpc/server.h"
#include "worker/machine.h"

namespace lockstep {
namespace {

absl::Status ResolveTrainer(WorkerOptions* options) {
  std::error_code error;
  if (options->trainer.empty()) {
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
    if (error) return ErrnoStatus(error.value(), "cannot find this program's own file,", "/proc/self/exe");
    options->trainer = self.parent_path() / "lockstep-trainer";
  }
  // It runs in a folder of its own.
  options->trainer = std::filesystem::absolute(options->trainer, error).lexically_normal();
  if (access(options->trainer.c_str(), X_OK) != 0) {
    return Annotate(ErrnoStatus(errno, "cannot run", options->trainer), "--trainer");
  }
  return absl::OkStatus();
}

}  // namespace

void AddWorkerFlags(CLI::App& app, WorkerOptions& options) {
  AddConfigFile(app);
  AddClientFlags(app, options.client);
  app.add_option("--state-dir", options.state_folder, "Folder for what outlives this worker (its id) and its trainers' scratch files")
      ->required();
  app.add_option("--address", options.address,
                 "Address on which trainers of other hosts reach those of this one (default: the one that faces the coordinator)");
  app.add_option("--slots", options.slots, "Trainers to offer at once (default: one a core)");
  app.add_option("--cores", options.cores, "Cores to offer (default: those that this process may run on)");
  app.add_option("--memory", options.memory_bytes,
                 "Memory to offer to trainers, as in 8GiB: what they are predicted to take never passes it (default: all that the machine "
                 "has, or that its control groups allow if that is less)")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
      ->option_text("SIZE");
  app.add_option("--trainer", options.trainer, "Program to run for a trainer (default: lockstep-trainer beside this program)");
  app.add_option("--metrics", options.metrics, "HOST:PORT to serve /metrics on; port 0 takes any free one")->capture_default_str();
  app.add_flag("--insecure", options.insecure, "Allow metrics to be served beyond loopback, where they are open to whoever asks");
  app.add_option("--ready-file", options.ready_file,
                 "Write {\"worker_id\", \"metrics\", \"pid\"} to this file once the coordinator has answered for the first time");
  app.add_flag("--die-with-parent", options.die_with_parent, "End at once, with all trainers, when the process that started this dies");
  app.add_option("--stop-grace-seconds", options.stop_grace_seconds, "From asking a trainer to end to killing it")
      ->check(CLI::Range(0.0, 3600.0))
      ->capture_default_str();
  const std::map<std::string, LogLevel> levels = {
      {"debug", LogLevel::kDebug}, {"info", LogLevel::kInfo}, {"warning", LogLevel::kWarning}, {"error", LogLevel::kError}};
  app.add_option("--log-level", options.log_level, "debug, info, warning or error")
      ->transform(CLI::CheckedTransformer(levels, CLI::ignore_case))
      ->option_text("TEXT:{debug,info,warning,error}=info");
}

absl::Status ResolveDefaults(WorkerOptions* options) {
  if (options->client.coordinator.empty()) {
    return absl::InvalidArgumentError("name the coordinator: --coordinator HOST:PORT, or LOCKSTEP_COORDINATOR");
  }
  if (!options->insecure && !IsLoopback(options->metrics)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics ", options->metrics, " is beyond loopback, where anybody may read them: allow it by --insecure"));
  }
  if (options->address.empty()) {
    ASSIGN_OR_RETURN(options->address, AddressTowards(options->client.coordinator));
  }
  if (options->cores == 0) options->cores = Cores();
  if (options->slots == 0) options->slots = options->cores;
  if (options->memory_bytes == 0) options->memory_bytes = MemoryBytes();
  return ResolveTrainer(options);
}

}  // namespace lockstep
