#pragma once
// The coordinator's HTTP side: "/" for people, "/metrics" for Prometheus, "/healthz" for supervisors. It tells, and changes
// nothing. Thread-safe.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace httplib {
class Server;
}

namespace lockstep {

class HttpServer {
 public:
  struct Answer {
    int code = 200;
    std::string content_type;
    std::string body;
  };
  // By path. Called on the server's threads.
  using Pages = std::map<std::string, std::function<Answer()>>;

  // `listen`: HOST:PORT; port 0: any free one. InvalidArgument: it is no address. Unavailable: the port is in use.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& listen, const Pages& pages);
  // Waits for the pages under way.
  ~HttpServer();

  // With the port that was bound.
  const std::string& address() const { return address_; }

 private:
  HttpServer();

  const std::unique_ptr<httplib::Server> server_;
  std::string address_;
  std::thread thread_;
};

}  // namespace lockstep
