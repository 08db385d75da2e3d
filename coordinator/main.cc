// lockstep-coordinator: keeps jobs, plans and places them on workers, and tells everybody how they are doing.

#include <malloc.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/logging.h"
#include "coordinator/server.h"
#include "rpc/options.h"

namespace lockstep {
namespace {

constexpr int kFailed = 1;
constexpr int kBadInput = 2;
constexpr uint32_t kHeartbeatsInALease = 3;

struct Flags {
  ServerFlags server;
  std::string http = "127.0.0.1:7071";
  std::string state_folder;
  std::string ready_file;
  std::string log_level = "info";
  uint32_t lease_ms = 10'000;
  uint32_t heartbeat_ms = 1'000;
  uint32_t silence_ms = 10'000;
  bool die_with_parent = false;
};

void AddFlags(CLI::App& app, Flags& flags) {
  flags.server.listen = "127.0.0.1:7070";
  AddServerFlags(app, flags.server);
  app.add_option("--http", flags.http, "HOST:PORT for the page, /metrics and /healthz; empty: none")->capture_default_str();
  app.add_option("--state-dir", flags.state_folder, "Folder for jobs, results and logs; made if it is missing")->required();
  app.add_option("--lease-ms", flags.lease_ms, "A worker that is not heard of for so long is lost")
      ->capture_default_str()
      ->check(CLI::Range(100, 3'600'000));
  app.add_option("--heartbeat-ms", flags.heartbeat_ms, "How often workers report")->capture_default_str()->check(CLI::Range(10, 600'000));
  app.add_option("--silence-ms", flags.silence_ms, "A trainer that gives no sign of life for so long is taken for dead")
      ->capture_default_str()
      ->check(CLI::Range(3'000, 3'600'000));
  app.add_option("--ready-file", flags.ready_file, "Written once everything is served: JSON with grpc, http and pid");
  app.add_flag("--die-with-parent", flags.die_with_parent, "End when the process that started this one ends");
  app.add_option("--log-level", flags.log_level, "debug, info, warning or error")
      ->capture_default_str()
      ->check(CLI::IsMember({"debug", "info", "warning", "error"}));
  app.set_version_flag("--version", LOCKSTEP_VERSION);
  AddConfigFile(app);
}

LogLevel ToLogLevel(const std::string& name) {
  static const std::map<std::string, LogLevel> levels = {
      {"debug", LogLevel::kDebug}, {"info", LogLevel::kInfo}, {"warning", LogLevel::kWarning}, {"error", LogLevel::kError}};
  return levels.at(name);
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "lockstep-coordinator: %s\n", std::string(status.message()).c_str());
  const bool input = absl::IsInvalidArgument(status) || absl::IsUnavailable(status) || absl::IsNotFound(status) ||
                     absl::IsFailedPrecondition(status) || absl::IsPermissionDenied(status);
  return input ? kBadInput : kFailed;
}

absl::Status WriteReadyFile(const std::string& path, const CoordinatorServer& server) {
  const nlohmann::json ready = {{"grpc", server.rpc_address()}, {"http", server.http_address()}, {"pid", getpid()}};
  return WriteFileAtomically(path, absl::StrCat(ready.dump(), "\n"));
}

int Serve(const Flags& flags, const sigset_t& ends) {
  if (flags.heartbeat_ms > flags.lease_ms / kHeartbeatsInALease) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat("--heartbeat-ms is ", flags.heartbeat_ms, ": at most ",
                                                flags.lease_ms / kHeartbeatsInALease, ", a third of --lease-ms, or workers are lost")));
  }
  CoordinatorServer::Options options;
  auto rpc = ReadServerOptions(flags.server);
  if (!rpc.ok()) return Fail(rpc.status());
  options.rpc = std::move(*rpc);
  options.state_folder = flags.state_folder;
  options.http_listen = flags.http;
  options.coordinator.version = LOCKSTEP_VERSION;
  options.coordinator.lease = absl::Milliseconds(flags.lease_ms);
  options.coordinator.heartbeat = absl::Milliseconds(flags.heartbeat_ms);
  options.coordinator.silence = absl::Milliseconds(flags.silence_ms);
  auto server = CoordinatorServer::Start(options);
  if (!server.ok()) return Fail(server.status());
  if (!flags.ready_file.empty()) {
    if (absl::Status written = WriteReadyFile(flags.ready_file, **server); !written.ok()) return Fail(written);
  }
  LOG_INFO("event=serving grpc=%s http=%s state_dir=%s version=%s", (*server)->rpc_address(), (*server)->http_address(), flags.state_folder,
           LOCKSTEP_VERSION);
  int signal = 0;
  sigwait(&ends, &signal);
  LOG_INFO("event=draining signal=%d", signal);
  server->reset();
  if (!flags.ready_file.empty()) unlink(flags.ready_file.c_str());
  LOG_INFO("event=ended");
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  const pid_t parent = getppid();
  CLI::App app("Keeps jobs, plans and places them on workers, and tells everybody how they are doing.", "lockstep-coordinator");
  lockstep::Flags flags;
  lockstep::AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : lockstep::kBadInput;
  }
  if (flags.die_with_parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || parent == 1) return lockstep::kFailed;
  }
  signal(SIGPIPE, SIG_IGN);
  // Twenty threads serve calls in turn, and each would have a heap of its own, where what lives long keeps what lives short from going
  // back: that grew by 1.5 KB a step for ever. One heap stays as large as what is live.
  mallopt(M_ARENA_MAX, 1);
  // Jobs, models and the secrets of generations are nobody else's.
  umask(077);
  // Blocked here, before there are threads: all of them leave these to the one that waits.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  lockstep::InitLogging("coordinator", lockstep::ToLogLevel(flags.log_level));
  return lockstep::Serve(flags, ends);
}
