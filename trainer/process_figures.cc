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
#include "base/resident_memory.h"

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

// glibc's HEAP_MAX_SIZE: its arenas but the first lie in regions of this size, aligned to it.
constexpr uint64_t kArenaBytes = 64 << 20;

// Of the mappings that malloc cuts its blocks from, the first arena's "[heap]" and the others', what is resident.
int64_t ResidentArenaBytes(const void* not_heap) {
  const std::string maps = ReadFile("/proc/self/maps").value_or("");
  int64_t resident = 0;
  for (const absl::string_view line : absl::StrSplit(maps, '\n')) {
    const size_t dash = line.find('-');
    const size_t space = line.find(' ');
    uint64_t begin = 0, end = 0;
    if (space == absl::string_view::npos || !absl::SimpleHexAtoi(line.substr(0, dash), &begin)) continue;
    if (!absl::SimpleHexAtoi(line.substr(dash + 1, space - dash - 1), &end)) continue;
    const bool first = absl::EndsWith(line, "[heap]");
    // "rw-p 00000000 00:00 0", and no name.
    const bool arena = begin % kArenaBytes == 0 && end - begin <= kArenaBytes && absl::StrContains(line, " rw-p ") &&
                       absl::EndsWith(absl::StripTrailingAsciiWhitespace(line), " 00:00 0");
    if (first || (arena && reinterpret_cast<const void*>(begin) != not_heap)) {
      resident += ResidentBytesOf(reinterpret_cast<const void*>(begin), end - begin);
    }
  }
  return resident;
}

}  // namespace

ResidentBytes GetResidentBytes() {
  const std::string status = ReadFile("/proc/self/status").value_or("");
  return {KilobyteField(status, "VmRSS:"), KilobyteField(status, "RssFile:"), KilobyteField(status, "RssShmem:")};
}

HeapBytes GetHeapBytes(const void* not_heap) {
  const struct mallinfo2 info = mallinfo2();
  HeapBytes heap;
  heap.in_use = static_cast<int64_t>(info.uordblks + info.hblkhd);
  heap.free =
      std::clamp<int64_t>(ResidentArenaBytes(not_heap) - static_cast<int64_t>(info.uordblks), 0, static_cast<int64_t>(info.fordblks));
  return heap;
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
