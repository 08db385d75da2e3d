#include "coordinator/server.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/page.h"

namespace lockstep {
namespace {

// What calls under way may take to end when the server stops.
constexpr absl::Duration kGrace = absl::Seconds(1);
constexpr int kTicksInALease = 10;

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(const Options& options) {
  std::unique_ptr<CoordinatorServer> server(new CoordinatorServer);
  ASSIGN_OR_RETURN(server->folder_, StateFolder::Open(options.state_folder));
  ASSIGN_OR_RETURN(server->store_, Store::Open(server->folder_->StorePath()));
  ASSIGN_OR_RETURN(server->coordinator_, Coordinator::Create(options.coordinator, *server->store_, server->clock_));
  server->folder_->Sweep(server->coordinator_->ArtifactFiles());
  server->logs_ = std::make_unique<JobLogs>(*server->folder_);
  server->gate_ = std::make_unique<CallGate>(options.rpc.token, server->counters_);
  server->client_service_ =
      std::make_unique<ClientService>(*server->coordinator_, *server->folder_, *server->logs_, *server->gate_, options.coordinator.version);
  server->cluster_service_ = std::make_unique<ClusterService>(*server->coordinator_, *server->folder_, *server->logs_, *server->gate_);
  ASSIGN_OR_RETURN(server->rpc_, RpcServer::Start(options.rpc, {server->client_service_.get(), server->cluster_service_.get()}));
  if (!options.http_listen.empty()) RETURN_IF_ERROR(server->StartHttp(options));
  server->StartTicking(std::min(options.coordinator.lease / kTicksInALease, absl::Seconds(1)));
  return server;
}

absl::Status CoordinatorServer::StartHttp(const Options& options) {
  if (!IsLoopback(options.http_listen) && !options.rpc.insecure) {
    return absl::InvalidArgumentError(absl::StrCat("http: ", options.http_listen,
                                                   " is beyond loopback, where anybody could read of the jobs; take 127.0.0.1, or "
                                                   "--insecure where the network is trusted"));
  }
  const std::string version = options.coordinator.version;
  HttpServer::Pages pages;
  pages["/"] = [this, version]() -> HttpServer::Answer {
    return {200, "text/html; charset=utf-8", Page(coordinator_->TakeSnapshot(), version, clock_.Now())};
  };
  pages["/metrics"] = [this]() -> HttpServer::Answer {
    return {200, "text/plain; version=0.0.4; charset=utf-8", MetricsText(coordinator_->TakeSnapshot(), counters_)};
  };
  pages["/healthz"] = [this]() -> HttpServer::Answer {
    const absl::Status health = store_->health();
    return {health.ok() ? 200 : 503, "text/plain", health.ok() ? "ok\n" : absl::StrCat(health.message(), "\n")};
  };
  ASSIGN_OR_RETURN(http_, HttpServer::Bind("http", options.http_listen));
  return http_->Serve(pages);
}

void CoordinatorServer::StartTicking(absl::Duration every) {
  ticker_ = std::thread([this, every] {
    while (!stopping_.WaitForNotificationWithTimeout(every)) coordinator_->Tick();
  });
}

CoordinatorServer::~CoordinatorServer() {
  stopping_.Notify();
  if (coordinator_ != nullptr) coordinator_->Stop();
  if (rpc_ != nullptr) rpc_->Shutdown(kGrace);
  http_.reset();
  if (ticker_.joinable()) ticker_.join();
}

}  // namespace lockstep
