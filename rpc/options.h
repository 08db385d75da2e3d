#pragma once
// Command-line options that our programs share, and the YAML file that may hold any of them (--config FILE; keys are the
// options' long names). Not thread-safe: for main.

#include <CLI/CLI.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "rpc/channel.h"
#include "rpc/server.h"

namespace lockstep {

// "--config FILE.yaml" for `app`: unknown keys are an error with the nearest known one; the command line wins over the file.
void AddConfigFile(CLI::App& app);

// Of everybody who speaks to a coordinator.
struct ClientFlags {
  std::string coordinator;  // HOST:PORT; or LOCKSTEP_COORDINATOR
  std::string token_file;   // or LOCKSTEP_TOKEN_FILE, or the token itself in LOCKSTEP_TOKEN
  std::string ca_certificate_file;
  std::string server_name;
};
void AddClientFlags(CLI::App& app, ClientFlags& flags);
// Reads the files. NotFound and the like name them.
absl::StatusOr<ChannelOptions> ReadChannelOptions(const ClientFlags& flags);

// Of a server.
struct ServerFlags {
  std::string listen;
  std::string token_file;
  std::string tls_certificate_file, tls_key_file;
  bool insecure = false;
};
void AddServerFlags(CLI::App& app, ServerFlags& flags);
absl::StatusOr<ServerOptions> ReadServerOptions(const ServerFlags& flags);

}  // namespace lockstep
