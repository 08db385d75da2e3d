#include "trainer/process_figures.h"

#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/failpoint.h"
#include "base/file.h"

namespace lockstep {
namespace {

// "VmRSS:     1234 kB" → bytes.
int64_t KilobyteField(absl::string_view status, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (!absl::ConsumePrefix(&line, name)) continue;
    absl::ConsumeSuffix(&line, " kB");
    int64_t kilobytes = 0;
    if (absl::SimpleAtoi(absl::StripAsciiWhitespace(line), &kilobytes)) return kilobytes << 10;
  }
  return 0;
}

}  // namespace

ResidentBytes GetResidentBytes() {
  const std::string status = ReadFile("/proc/self/status").value_or("");
  return {KilobyteField(status, "VmRSS:"), KilobyteField(status, "RssFile:"), KilobyteField(status, "RssShmem:")};
}

HeapBytes GetHeapBytes() {
  const struct mallinfo2 info = mallinfo2();
  return {static_cast<int64_t>(info.uordblks + info.hblkhd), static_cast<int64_t>(info.fordblks)};
}

void LeakHeap(int64_t bytes) {
  constexpr size_t kBlock = 4096;
  for (int64_t leaked = 0; leaked < bytes; leaked += kBlock) {
    if (void* volatile block = std::malloc(kBlock); block != nullptr) std::memset(block, 1, kBlock);
  }
}

std::string HostId() {
  const std::string boot = ReadFile("/proc/sys/kernel/random/boot_id").value_or("unknown");
  struct stat space {};
  stat("/proc/self/ns/net", &space);
  // In a drill each process is a host of its own, and they talk over sockets.
  static const bool apart = LOCKSTEP_FAILPOINT("trainer.own_host");
  return absl::StrCat(absl::StripAsciiWhitespace(boot), ".", space.st_ino, apart ? absl::StrCat(".", getpid()) : "");
}

std::map<std::string, std::string> ProcessorEnvironment() {
  std::map<std::string, std::string> environment;
  const std::string info = ReadFile("/proc/cpuinfo").value_or("");
  for (absl::string_view line : absl::StrSplit(info, '\n')) {
    const std::pair<absl::string_view, absl::string_view> field = absl::StrSplit(line, absl::MaxSplits(':', 1));
    const absl::string_view name = absl::StripAsciiWhitespace(field.first);
    if (name == "model name") environment["processor"] = std::string(absl::StripAsciiWhitespace(field.second));
    if (name != "flags") continue;
    std::vector<absl::string_view> vector_sets;
    for (absl::string_view flag : absl::StrSplit(field.second, ' ')) {
      if (absl::StartsWith(flag, "avx") || absl::StartsWith(flag, "amx") || flag == "fma") vector_sets.push_back(flag);
    }
    std::sort(vector_sets.begin(), vector_sets.end());
    environment["instruction_sets"] = absl::StrJoin(vector_sets, " ");
    break;
  }
  return environment;
}

}  // namespace lockstep
