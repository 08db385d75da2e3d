#include "rpc/http_server.h"

#include <httplib.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace lockstep {
namespace {

constexpr size_t kThreads = 4;
constexpr absl::Duration kStartTimeout = absl::Seconds(10);

}  // namespace

HttpServer::HttpServer() : server_(std::make_unique<httplib::Server>()) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Bind(const std::string& flag, const std::string& listen) {
  const size_t colon = listen.rfind(':');
  int port = -1;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port < 0 || port > 65'535) {
    return absl::InvalidArgumentError(absl::StrCat(flag, " \"", listen, "\" is not HOST:PORT"));
  }
  const std::string host = listen.substr(0, colon);
  std::unique_ptr<HttpServer> http(new HttpServer);
  httplib::Server& server = *http->server_;
  // The library's own choice would let a second server listen on the same port.
  server.set_socket_options([](socket_t socket) {
    const int on = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  });
  // Connections that are kept would hold up the program when it ends.
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
        absl::StrCat(flag, ": cannot listen on ", listen, ": ", errno != 0 ? std::strerror(errno) : "no such address"));
  }
  http->address_ = absl::StrCat(host, ":", port);
  return http;
}

absl::Status HttpServer::Serve(const Pages& pages) {
  for (const auto& [path, page] : pages) {
    server_->Get(path, [page = page](const httplib::Request&, httplib::Response& response) {
      const Answer answer = page();
      response.status = answer.code;
      response.set_content(answer.body, answer.content_type);
    });
  }
  thread_ = std::thread([this] { server_->listen_after_bind(); });
  // Before that it cannot be stopped.
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (!server_->is_running() && absl::Now() < deadline) std::this_thread::yield();
  if (!server_->is_running()) return absl::UnavailableError(absl::StrCat("the listener on ", address_, " does not run"));
  return absl::OkStatus();
}

HttpServer::~HttpServer() {
  server_->stop();
  if (thread_.joinable()) thread_.join();
}

}  // namespace lockstep
