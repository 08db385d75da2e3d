#include "base/resident_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/file_descriptor.h"

namespace lockstep {
namespace {

// proc(5), "pagemap": a word for each page.
constexpr uint64_t kPresent = uint64_t{1} << 63;
constexpr size_t kWords = 4096;

}  // namespace

int64_t ResidentBytesOf(const void* address, size_t bytes) {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uint64_t>(address) / page;
  const uint64_t end = (reinterpret_cast<uint64_t>(address) + bytes + page - 1) / page;
  const FileDescriptor pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!pagemap.valid()) return static_cast<int64_t>(bytes);
  std::array<uint64_t, kWords> words;
  int64_t present = 0;
  for (uint64_t at = begin; at < end;) {
    const size_t wanted = std::min<uint64_t>(words.size(), end - at) * sizeof(uint64_t);
    const ssize_t got = pread(pagemap.get(), words.data(), wanted, static_cast<off_t>(at * sizeof(uint64_t)));
    if (got <= 0) return static_cast<int64_t>(bytes);
    const auto count = static_cast<size_t>(got) / sizeof(uint64_t);
    present += std::count_if(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(count),
                             [](uint64_t word) { return (word & kPresent) != 0; });
    at += count;
  }
  return present * static_cast<int64_t>(page);
}

}  // namespace lockstep
