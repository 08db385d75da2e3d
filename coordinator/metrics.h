#pragma once
// What /metrics says: the state of the coordinator as it is when it is scraped, and counts of calls. docs/metrics.md lists the
// series. Their number is bounded: jobs that have not ended, and the newest that have. Thread-safe.

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/registry.h>

#include <string>

#include "absl/status/status.h"
#include "coordinator/coordinator.h"

namespace lockstep {

class RpcCounters {
 public:
  RpcCounters();
  void Count(const char* method, absl::StatusCode code);
  prometheus::Registry& registry() { return registry_; }

 private:
  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& calls_;
};

// In Prometheus' text format.
std::string MetricsText(const Snapshot& snapshot, RpcCounters& counters);

}  // namespace lockstep
