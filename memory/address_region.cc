#include "memory/address_region.h"

#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace lockstep::memory {
namespace {

constexpr int64_t kChunk = 64 << 20;
constexpr int64_t kTimesMemory = 16;

int64_t RoundUp(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

}  // namespace

AddressRegion::AddressRegion() {
  const int64_t memory = std::max<int64_t>(sysconf(_SC_PHYS_PAGES), 1) * sysconf(_SC_PAGESIZE);
  for (int64_t size = RoundUp(kTimesMemory * memory, kChunk); size >= kChunk; size = RoundUp(size / 2, kPageBytes)) {
    void* base = mmap(nullptr, static_cast<size_t>(size), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) continue;
    base_ = static_cast<std::byte*>(base);
    size_ = size;
    return;
  }
}

AddressRegion::~AddressRegion() {
  if (size_ == 0) return;
  ASAN_UNPOISON_MEMORY_REGION(base_, static_cast<size_t>(open_));
  munmap(base_, static_cast<size_t>(size_));
}

bool AddressRegion::Open(int64_t end) {
  if (end <= open_) return true;
  for (const int64_t upto : {std::min(RoundUp(end, kChunk), size_), end}) {
    if (mprotect(base_ + open_, static_cast<size_t>(upto - open_), PROT_READ | PROT_WRITE) != 0) continue;
    open_ = upto;
    return true;
  }
  return false;
}

void AddressRegion::GiveBack(Range range) {
  // It fails for locked pages alone, and then every count of ours would be wrong.
  if (madvise(At(range.begin), static_cast<size_t>(range.size), MADV_DONTNEED) != 0) std::abort();
}

int64_t AddressRegion::ResidentBytes() const {
  if (open_ == 0) return 0;
  std::vector<unsigned char> pages(static_cast<size_t>(open_ / kPageBytes));
  if (mincore(base_, static_cast<size_t>(open_), pages.data()) != 0) return 0;
  return std::count_if(pages.begin(), pages.end(), [](unsigned char page) { return (page & 1) != 0; }) * kPageBytes;
}

}  // namespace lockstep::memory
