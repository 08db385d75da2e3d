#pragma once
// A whole coordinator in one object: state folder, store, decisions, gRPC services, HTTP, and the thread that lets time pass.
// The program is this and flags; tests run it in process.

#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "base/clock.h"
#include "coordinator/client_service.h"
#include "coordinator/cluster_service.h"
#include "coordinator/coordinator.h"
#include "coordinator/job_logs.h"
#include "coordinator/metrics.h"
#include "coordinator/state_folder.h"
#include "coordinator/store.h"
#include "rpc/http_server.h"
#include "rpc/server.h"

namespace lockstep {

class CoordinatorServer {
 public:
  struct Options {
    std::string state_folder;
    ServerOptions rpc;
    // HOST:PORT; empty: no HTTP.
    std::string http_listen;
    CoordinatorOptions coordinator;
  };

  // Serves once it returns.
  static absl::StatusOr<std::unique_ptr<CoordinatorServer>> Start(const Options& options);
  // Drains: no new calls, waiting ones end with Unavailable, then everything is closed.
  ~CoordinatorServer();

  const std::string& rpc_address() const { return rpc_->address(); }
  // Empty without HTTP.
  std::string http_address() const { return http_ == nullptr ? "" : http_->address(); }
  Coordinator& coordinator() { return *coordinator_; }

 private:
  CoordinatorServer() = default;
  absl::Status StartHttp(const Options& options);
  void StartTicking(absl::Duration every);

  RealClock clock_;
  RpcCounters counters_;
  absl::Notification stopping_;
  std::unique_ptr<StateFolder> folder_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<JobLogs> logs_;
  std::unique_ptr<CallGate> gate_;
  std::unique_ptr<ClientService> client_service_;
  std::unique_ptr<ClusterService> cluster_service_;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<HttpServer> http_;
  std::thread ticker_;
};

}  // namespace lockstep
