// lockstep-worker: the agent on a host. It offers the host's slots to a coordinator, starts and watches the trainers that are
// wanted here, and takes them with it when it goes.

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "base/logging.h"
#include "worker/worker.h"

int main(int argc, char** argv) {
  const pid_t parent = getppid();
  CLI::App app("Offers this host's slots to a Lockstep coordinator and runs the trainers that it wants here.", "lockstep-worker");
  lockstep::WorkerOptions options;
  lockstep::AddWorkerFlags(app, options);
  app.set_version_flag("--version", LOCKSTEP_VERSION);
  app.footer(
      "Ends on SIGTERM: trainers first, then itself. Exit codes: 0 drained, 1 failed, 2 cannot start or refused by the "
      "coordinator.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : lockstep::kExitRefused;
  }
  if (options.die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) return lockstep::kExitFailed;
  }
  signal(SIGPIPE, SIG_IGN);
  lockstep::InitLogging("worker", options.log_level);
  return lockstep::RunWorker(options);
}
