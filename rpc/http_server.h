#pragma once
// A few pages over HTTP beside the gRPC services: "/" for people, "/metrics" for Prometheus, "/healthz" for supervisors. It tells,
// and changes nothing. Not thread-safe; pages are made on threads of its own.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
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

  // `listen`: HOST:PORT; port 0: any free one. Takes the port, and answers once Serve is called. `flag` begins the messages.
  // InvalidArgument: it is no HOST:PORT. Unavailable: the port is in use, or the host is none of this machine's.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Bind(const std::string& flag, const std::string& listen);
  // Waits for the pages under way.
  ~HttpServer();

  // Called once. Unavailable: it does not run.
  absl::Status Serve(const Pages& pages);

  // With the port that was bound.
  const std::string& address() const { return address_; }

 private:
  HttpServer();

  const std::unique_ptr<httplib::Server> server_;
  std::string address_;
  std::thread thread_;
};

}  // namespace lockstep
