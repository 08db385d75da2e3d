#pragma once
// The flags of lockstep-worker. Not thread-safe: for main.

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/logging.h"
#include "rpc/options.h"

namespace lockstep {

struct WorkerOptions {
  ClientFlags client;
  std::string state_folder;
  // Empty, or 0: found out by ResolveDefaults.
  std::string address;
  uint32_t slots = 0;
  uint32_t cores = 0;
  uint64_t memory_bytes = 0;
  std::string trainer;

  std::string metrics = "127.0.0.1:7072";
  bool insecure = false;
  std::string ready_file;
  bool die_with_parent = false;
  double stop_grace_seconds = 5;
  LogLevel log_level = LogLevel::kInfo;
};

void AddWorkerFlags(CLI::App& app, WorkerOptions& options);

// What was left open, from this machine. InvalidArgument or NotFound name the flag that is wrong.
absl::Status ResolveDefaults(WorkerOptions* options);

}  // namespace lockstep
