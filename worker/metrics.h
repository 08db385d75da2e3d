#pragma once
// The worker's /metrics, as docs/metrics.md lists them: of each trainer that runs now, and of the worker itself. They are made
// from the supervisor's state when Prometheus asks, so that a trainer's series end with it. Thread-safe: no state.

#include <cstdint>
#include <string>
#include <vector>

#include "proto/cluster.pb.h"
#include "worker/supervisor.h"

namespace lockstep {

struct WorkerFigures {
  std::string worker_id;
  std::vector<v1::TrainerReport> running;
  TrainerCounts counts;
  bool connected = false;
  uint64_t resident_bytes = 0;
};

// In Prometheus' text format, families in the order of docs/metrics.md.
std::string MetricsText(const WorkerFigures& figures);

}  // namespace lockstep
