#include "base/failpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/logging.h"

namespace lockstep {
namespace {

struct Point {
  std::string action;
  uint64_t at = 1, most = 1;
  uint64_t hits = 0;
  bool in_process = false;
};

struct Failpoints {
  absl::Mutex mutex;
  std::map<std::string, Point, std::less<>> points;
  std::string folder;
};

// "kill@12x3".
Point Parse(std::string text) {
  Point point;
  const auto cut = [&text](char mark) -> uint64_t {
    const size_t at = text.rfind(mark);
    uint64_t count = 0;
    if (at == std::string::npos || !absl::SimpleAtoi(text.substr(at + 1), &count)) return 1;
    text.resize(at);
    return count;
  };
  point.most = cut('x');
  point.at = cut('@');
  point.action = text;
  return point;
}

std::atomic<bool> any_set{false};

Failpoints* Read() {
  const char* text = std::getenv("LOCKSTEP_FAILPOINTS");
  const char* folder = std::getenv("LOCKSTEP_FAILPOINT_DIR");
  auto* all = new Failpoints;
  if (text == nullptr || *text == '\0' || folder == nullptr) return all;
  any_set = true;
  all->folder = folder;
  for (const absl::string_view entry : absl::StrSplit(text, ',', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(entry, absl::MaxSplits('=', 1));
    all->points[parts.first] = Parse(parts.second);
  }
  return all;
}

Failpoints* All() {
  static Failpoints* const all = Read();  // never destroyed
  return all;
}

// One of `most` firings that all processes share.
bool Claim(const std::string& folder, std::string_view name, uint64_t most) {
  for (uint64_t i = 0; i < most; ++i) {
    const int fd = open(absl::StrCat(folder, "/", absl::string_view(name.data(), name.size()), ".", i).c_str(),
                        O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) continue;
    const std::string pid = absl::StrCat(getpid(), "\n");
    [[maybe_unused]] const ssize_t written = write(fd, pid.data(), pid.size());
    close(fd);
    return true;
  }
  return false;
}

}  // namespace

bool FailpointsAreSet() {
  static const bool read = All() != nullptr;
  return read && any_set.load(std::memory_order_relaxed);
}

void SetFailpoint(std::string_view name, std::string_view action) {
  Failpoints& all = *All();
  absl::MutexLock lock(&all.mutex);
  if (action.empty()) {
    all.points.erase(std::string(name));
    return;
  }
  Point& point = all.points[std::string(name)] = Parse(std::string(action));
  point.in_process = true;
  any_set = true;
}

bool ClaimFailpoint(std::string_view name, uint64_t most) {
  static const char* const folder = std::getenv("LOCKSTEP_FAILPOINT_DIR");
  return folder != nullptr && Claim(folder, name, most);
}

bool FailpointHit(std::string_view name) {
  Failpoints& all = *All();
  std::string action;
  {
    absl::MutexLock lock(&all.mutex);
    const auto found = all.points.find(name);
    if (found != all.points.end() && found->second.action.starts_with("slow:")) {
      action = found->second.action;
    } else if (found == all.points.end() || ++found->second.hits < found->second.at) {
      return false;
    } else {
      if (found->second.in_process ? found->second.most-- == 0 : !Claim(all.folder, name, found->second.most)) return false;
      action = found->second.action;
      if (found->second.in_process && found->second.most == 0) all.points.erase(found);
    }
  }
  int64_t slow = 0;
  if (absl::string_view rest = action; absl::ConsumePrefix(&rest, "slow:") && absl::SimpleAtoi(rest, &slow)) {
    absl::SleepFor(absl::Milliseconds(slow));
    return false;
  }
  LOG_WARNING("failpoint=%s action=%s", name, action);
  if (action == "kill") kill(getpid(), SIGKILL);
  if (action == "stop") kill(getpid(), SIGSTOP);
  if (action == "exit") _exit(3);
  int64_t milliseconds = 0;
  if (absl::string_view rest = action; absl::ConsumePrefix(&rest, "delay:") && absl::SimpleAtoi(rest, &milliseconds)) {
    absl::SleepFor(absl::Milliseconds(milliseconds));
  }
  return action == "error";
}

}  // namespace lockstep
