// lockstep-trainer: the process that owns one device (or CPU share) for one job. A worker starts it and says everything else over
// the control socket; it never outlives that worker.

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <string>

#include "base/logging.h"
#include "trainer/session.h"

int main(int argc, char** argv) {
  CLI::App app("Trains one replica of one job. Started by lockstep-worker, not by hand.", "lockstep-trainer");
  int control_fd = -1;
  app.add_option("--control-fd", control_fd, "Descriptor of the socket to the worker that started this")->required();
  app.set_version_flag("--version", LOCKSTEP_VERSION);
  CLI11_PARSE(app, argc, argv);

  // The signal follows the thread that forked us; if that worker is gone already, nobody will send it.
  const pid_t worker = getppid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != worker || worker == 1) return 1;
  signal(SIGPIPE, SIG_IGN);
  lockstep::InitLogging("trainer", lockstep::LogLevel::kInfo);
  return lockstep::RunSession(control_fd);
}
