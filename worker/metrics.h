#pragma once
// The worker's /metrics, as docs/metrics.md lists them: of each trainer that runs now, and of the worker itself. They are made
// from the supervisor's state when Prometheus asks, so that a trainer's series end with it. Thread-safe.

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <prometheus/metric_family.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/cluster.pb.h"
#include "worker/attendance.h"
#include "worker/outbox.h"
#include "worker/supervisor.h"

namespace lockstep {

struct WorkerFigures {
  std::string worker_id;
  std::vector<v1::TrainerReport> running;
  TrainerCounts counts;
  bool connected = false;
  uint64_t resident_bytes = 0;
};

// In the order of docs/metrics.md.
std::vector<prometheus::MetricFamily> WorkerMetricFamilies(const WorkerFigures& figures);

class MetricsServer {
 public:
  // Serves on `listen` ("127.0.0.1:7072"; port 0: any free one) while it lives; the others must outlive it. Unavailable: the
  // port is in use, or the address is none of this host's.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& listen);

  // Until then only /metrics of the server itself is there. Once.
  void Show(const std::string& worker_id, const Outbox* outbox, const Supervisor* supervisor, const Attendance* attendance);

  // With the port that was bound.
  const std::string& address() const { return address_; }

 private:
  MetricsServer() = default;

  std::string address_;
  std::shared_ptr<prometheus::Collectable> collectable_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace lockstep
