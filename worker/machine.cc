#include "worker/machine.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <memory>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/file_descriptor.h"

namespace lockstep {
namespace {

// "MemTotal:   1234 kB" → bytes; 0 where there is no such line.
uint64_t KilobyteField(const std::string& path, absl::string_view name) {
  const std::string contents = ReadFile(path).value_or("");
  for (absl::string_view line : absl::StrSplit(contents, '\n')) {
    if (!absl::ConsumePrefix(&line, name)) continue;
    absl::ConsumeSuffix(&line, " kB");
    uint64_t kilobytes = 0;
    if (absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kilobytes)) return kilobytes << 10;
  }
  return 0;
}

// Of the group and those above it, whose limits hold too.
uint64_t LeastLimit(const std::string& hierarchy, absl::string_view group, absl::string_view file) {
  uint64_t least = UINT64_MAX, limit = 0;
  for (;;) {
    while (absl::ConsumeSuffix(&group, "/")) {
    }
    // "max", or no such file, is none.
    const std::string text = ReadFile(absl::StrCat(hierarchy, group, "/", file)).value_or("max");
    if (absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &limit)) least = std::min(least, limit);
    if (group.empty()) return least;
    group = group.substr(0, group.rfind('/'));
  }
}

struct AddressesDeleter {
  void operator()(addrinfo* addresses) const { freeaddrinfo(addresses); }
};

}  // namespace

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = {};
  gethostname(name, HOST_NAME_MAX);
  return name;
}

uint32_t Cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&set)));
}

uint64_t GroupMemoryLimit(const std::string& membership, const std::string& root) {
  uint64_t least = UINT64_MAX;
  for (const absl::string_view line : absl::StrSplit(membership, '\n', absl::SkipEmpty())) {
    // "4:cpu,memory:/group", or "0::/group" of version 2.
    const std::vector<absl::string_view> fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() < 3) continue;
    const std::vector<absl::string_view> controllers = absl::StrSplit(fields[1], ',');
    if (fields[1].empty()) least = std::min(least, LeastLimit(root, fields[2], "memory.max"));
    if (std::count(controllers.begin(), controllers.end(), "memory") > 0) {
      least = std::min(least, LeastLimit(absl::StrCat(root, "/memory"), fields[2], "memory.limit_in_bytes"));
    }
  }
  return least;
}

uint64_t MemoryBytes() {
  return std::min(KilobyteField("/proc/meminfo", "MemTotal:"),
                  GroupMemoryLimit(ReadFile("/proc/self/cgroup").value_or(""), "/sys/fs/cgroup"));
}

uint64_t ResidentBytes() { return KilobyteField("/proc/self/status", "VmRSS:"); }

absl::StatusOr<std::string> AddressTowards(const std::string& host_and_port) {
  const size_t colon = host_and_port.rfind(':');
  if (colon == std::string::npos || colon + 1 == host_and_port.size()) {
    return absl::InvalidArgumentError(absl::StrCat("\"", host_and_port, "\" is no HOST:PORT"));
  }
  std::string host = host_and_port.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const std::string port = host_and_port.substr(colon + 1);
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); error != 0) {
    return absl::NotFoundError(absl::StrCat("cannot find the coordinator's host ", host, ": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, AddressesDeleter> addresses(found);
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    // A datagram socket's connect sends nothing: the kernel only chooses the route.
    const FileDescriptor probe(socket(one->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage local{};
    socklen_t size = sizeof(local);
    if (probe.get() < 0 || connect(probe.get(), one->ai_addr, one->ai_addrlen) != 0) continue;
    if (getsockname(probe.get(), reinterpret_cast<sockaddr*>(&local), &size) != 0) continue;
    char text[NI_MAXHOST];
    if (getnameinfo(reinterpret_cast<sockaddr*>(&local), size, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) == 0)
      return std::string(text);
  }
  return absl::NotFoundError(absl::StrCat("no route to the coordinator's host ", host, "; name this host's address with --address"));
}

}  // namespace lockstep
