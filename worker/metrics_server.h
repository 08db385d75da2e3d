#pragma once
// Serves the worker's /metrics over HTTP. Not thread-safe; the page is made on threads of its own.

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace httplib {
class Server;
}

namespace lockstep {

class MetricsServer {
 public:
  // `listen`: "127.0.0.1:7072"; port 0: any free one. Takes the port, and answers once Serve is called. InvalidArgument: it is no
  // HOST:PORT. Unavailable: the port is in use, or the host is none of this machine's.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Bind(const std::string& listen);
  // Waits for the answers under way.
  ~MetricsServer();

  // `page` is Prometheus' text format, made anew for every request. Called once.
  void Serve(std::function<std::string()> page);

  // With the port that was bound.
  const std::string& address() const { return address_; }

 private:
  MetricsServer();

  const std::unique_ptr<httplib::Server> server_;
  std::string address_;
  std::thread thread_;
};

}  // namespace lockstep
