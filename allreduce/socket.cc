#include "allreduce/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {
namespace {

constexpr int kBacklog = 128;

absl::Status PollFor(std::span<pollfd> files, absl::Time deadline) {
  for (;;) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("a peer did not answer in time");
    const auto timeout = std::clamp<int64_t>(absl::ToInt64Milliseconds(left) + 1, 1, 1000);
    const int ready = poll(files.data(), files.size(), static_cast<int>(timeout));
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) return SocketError(errno, "poll");
  }
}

absl::Status PollFor(const FileDescriptor& socket, short events, absl::Time deadline) {
  pollfd file{socket.get(), events, 0};
  return PollFor(std::span(&file, 1), deadline);
}

bool Again(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

absl::StatusOr<sockaddr_un> LocalName(const std::string& name, socklen_t* length) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.empty() || name.size() + 1 > sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("\"", name, "\" cannot be the name of a local socket"));
  }
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  *length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;
absl::StatusOr<Addresses> Resolve(const std::string& host, const std::string& port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) return absl::InvalidArgumentError(absl::StrCat("address \"", host, "\": ", gai_strerror(error)));
  return Addresses(found, &freeaddrinfo);
}

void SendAtOnce(const FileDescriptor& socket) {
  const int on = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

absl::Status Connect(const FileDescriptor& socket, const sockaddr* address, socklen_t length, absl::Time deadline) {
  for (;;) {
    if (connect(socket.get(), address, length) == 0) return absl::OkStatus();
    // A local listener whose queue is full says EAGAIN and tells nobody when there is room.
    if (errno == EAGAIN && address->sa_family == AF_UNIX) {
      if (absl::Now() > deadline) return absl::DeadlineExceededError("a peer did not accept in time");
      absl::SleepFor(absl::Milliseconds(5));
      continue;
    }
    if (errno != EINPROGRESS && errno != EINTR) return SocketError(errno, "connect");
    break;
  }
  RETURN_IF_ERROR(PollFor(socket, POLLOUT, deadline));
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size);
  return error == 0 ? absl::OkStatus() : SocketError(error, "connect");
}

}  // namespace

absl::Status SocketError(int error, std::string_view what) {
  const std::string message = absl::StrCat(absl::string_view(what.data(), what.size()), ": ", std::strerror(error));
  const bool gone = error == ECONNRESET || error == ECONNREFUSED || error == EPIPE || error == ENOTCONN;
  return gone ? absl::AbortedError(message) : absl::UnavailableError(message);
}

absl::StatusOr<FileDescriptor> ListenTcp(const std::string& address) {
  ASSIGN_OR_RETURN(const Addresses found, Resolve(address, "0"));
  FileDescriptor socket(::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return SocketError(errno, "socket");
  if (bind(socket.get(), found->ai_addr, found->ai_addrlen) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("listen on ", address, ": ", std::strerror(errno)));
  }
  if (listen(socket.get(), kBacklog) != 0) return SocketError(errno, "listen");
  return socket;
}

absl::StatusOr<std::string> LocalAddress(const FileDescriptor& socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return SocketError(errno, "getsockname");
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  const int error = getnameinfo(reinterpret_cast<sockaddr*>(&address), length, host.data(), host.size(), port.data(), port.size(),
                                NI_NUMERICHOST | NI_NUMERICSERV);
  if (error != 0) return absl::InternalError(absl::StrCat("getnameinfo: ", gai_strerror(error)));
  if (address.ss_family == AF_INET6) return absl::StrCat("[", host.data(), "]:", port.data());
  return absl::StrCat(host.data(), ":", port.data());
}

absl::StatusOr<FileDescriptor> ListenLocal(const std::string& name) {
  socklen_t length = 0;
  ASSIGN_OR_RETURN(const sockaddr_un address, LocalName(name, &length));
  FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return SocketError(errno, "socket");
  if (bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) return SocketError(errno, "bind a local socket");
  if (listen(socket.get(), kBacklog) != 0) return SocketError(errno, "listen");
  return socket;
}

absl::StatusOr<FileDescriptor> ConnectTcp(const std::string& address, absl::Time deadline) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return absl::InvalidArgumentError(absl::StrCat("\"", address, "\" is not HOST:PORT"));
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  ASSIGN_OR_RETURN(const Addresses found, Resolve(host, address.substr(colon + 1)));
  FileDescriptor socket(::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return SocketError(errno, "socket");
  RETURN_IF_ERROR(Connect(socket, found->ai_addr, found->ai_addrlen, deadline));
  SendAtOnce(socket);
  return socket;
}

absl::StatusOr<FileDescriptor> ConnectLocal(const std::string& name, absl::Time deadline) {
  socklen_t length = 0;
  ASSIGN_OR_RETURN(const sockaddr_un address, LocalName(name, &length));
  FileDescriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return SocketError(errno, "socket");
  RETURN_IF_ERROR(Connect(socket, reinterpret_cast<const sockaddr*>(&address), length, deadline));
  return socket;
}

absl::StatusOr<Accepted> Accept(const FileDescriptor& tcp, const FileDescriptor& local, absl::Time deadline) {
  for (;;) {
    std::array<pollfd, 2> files{pollfd{tcp.get(), POLLIN, 0}, pollfd{local.get(), POLLIN, 0}};
    RETURN_IF_ERROR(PollFor(files, deadline));
    const bool is_local = files[1].revents != 0;
    FileDescriptor socket(accept4(is_local ? local.get() : tcp.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.valid()) {
      if (!is_local) SendAtOnce(socket);
      return Accepted{std::move(socket), is_local};
    }
    if (!Again(errno) && errno != ECONNABORTED) return SocketError(errno, "accept");
  }
}

absl::Status SendAll(const FileDescriptor& socket, std::span<const std::byte> bytes, absl::Time deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes = bytes.subspan(static_cast<size_t>(sent));
      continue;
    }
    if (!Again(errno)) return SocketError(errno, "send");
    RETURN_IF_ERROR(PollFor(socket, POLLOUT, deadline));
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(const FileDescriptor& socket, std::span<std::byte> bytes, absl::Time deadline) {
  while (!bytes.empty()) {
    const ssize_t received = recv(socket.get(), bytes.data(), bytes.size(), 0);
    if (received == 0) return absl::AbortedError("the peer closed the connection");
    if (received > 0) {
      bytes = bytes.subspan(static_cast<size_t>(received));
      continue;
    }
    if (!Again(errno)) return SocketError(errno, "receive");
    RETURN_IF_ERROR(PollFor(socket, POLLIN, deadline));
  }
  return absl::OkStatus();
}

absl::Status SendDescriptor(const FileDescriptor& socket, const FileDescriptor& descriptor, absl::Time deadline) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = descriptor.get();
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  while (sendmsg(socket.get(), &message, MSG_NOSIGNAL) < 0) {
    if (!Again(errno)) return SocketError(errno, "send a descriptor");
    RETURN_IF_ERROR(PollFor(socket, POLLOUT, deadline));
  }
  return absl::OkStatus();
}

absl::StatusOr<FileDescriptor> ReceiveDescriptor(const FileDescriptor& socket, absl::Time deadline) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t received = 0;
  while ((received = recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC)) < 0) {
    if (!Again(errno)) return SocketError(errno, "receive a descriptor");
    RETURN_IF_ERROR(PollFor(socket, POLLIN, deadline));
  }
  if (received == 0) return absl::AbortedError("the peer closed the connection");
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return absl::DataLossError("a packet came without its descriptor");
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return FileDescriptor(fd);
}

}  // namespace lockstep::allreduce
