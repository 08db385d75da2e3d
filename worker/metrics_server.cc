#include "worker/metrics_server.h"

#include <httplib.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

constexpr size_t kThreads = 2;

}  // namespace

MetricsServer::MetricsServer() : server_(std::make_unique<httplib::Server>()) {}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Bind(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port < 0 || port > 65'535) {
    return absl::InvalidArgumentError(absl::StrCat("--metrics \"", listen, "\" is not HOST:PORT"));
  }
  const std::string host = listen.substr(0, colon);
  std::unique_ptr<MetricsServer> metrics(new MetricsServer);
  httplib::Server& server = *metrics->server_;
  // The library's own choice would let a second server listen on the same port.
  server.set_socket_options([](socket_t socket) {
    const int on = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  });
  // Connections that are kept would keep the worker when it ends.
  server.set_keep_alive_max_count(1);
  server.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  errno = 0;
  if (port == 0) {
    port = server.bind_to_any_port(host);
  } else if (!server.bind_to_port(host, port)) {
    port = -1;
  }
  if (port < 0) {
    return absl::UnavailableError(
        absl::StrCat("--metrics: cannot listen on ", listen, ": ", errno != 0 ? std::strerror(errno) : "no such address"));
  }
  metrics->address_ = absl::StrCat(host, ":", port);
  return metrics;
}

MetricsServer::~MetricsServer() {
  server_->stop();
  if (thread_.joinable()) thread_.join();
}

void MetricsServer::Serve(std::function<std::string()> page) {
  server_->Get("/metrics", [page = std::move(page)](const httplib::Request&, httplib::Response& response) {
    response.set_content(page(), "text/plain; version=0.0.4; charset=utf-8");
  });
  thread_ = std::thread([this] { server_->listen_after_bind(); });
  // Before that it cannot be stopped.
  while (!server_->is_running()) std::this_thread::yield();
}

}  // namespace lockstep
