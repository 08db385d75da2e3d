#include "memory/block_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

namespace lockstep::memory {
namespace {

constexpr int64_t kAlignment = 64;
// From here on blocks are mappings of their own, which go back to the kernel when freed.
constexpr int64_t kMapped = 64 << 10;
constexpr int64_t kPage = 4096;
constexpr int64_t kHugePage = 2 << 20;

int64_t RoundUp(int64_t bytes, int64_t to) { return (bytes + to - 1) / to * to; }

int64_t BlockSize(size_t bytes) {
  const auto wanted = static_cast<int64_t>(std::max<size_t>(bytes, 1));
  return RoundUp(wanted, wanted >= kMapped ? kPage : kAlignment);
}

void* FromSystem(int64_t size) {
  if (size < kMapped) return std::aligned_alloc(kAlignment, static_cast<size_t>(size));
  void* address = mmap(nullptr, static_cast<size_t>(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  if (size >= kHugePage) madvise(address, static_cast<size_t>(size), MADV_HUGEPAGE);
  return address;
}

void ToSystem(void* address, int64_t size) {
  if (size < kMapped) {
    std::free(address);
  } else {
    munmap(address, static_cast<size_t>(size));
  }
}

}  // namespace

BlockPool::~BlockPool() { Trim(); }

void* BlockPool::TakeKept(int64_t size) {
  const auto found = kept_by_size_.lower_bound(size);
  if (found == kept_by_size_.end() || found->first - size > found->first / 8) return nullptr;
  const Kept kept = *found->second;
  kept_by_age_.erase(found->second);
  kept_by_size_.erase(found);
  kept_bytes_ -= kept.size;
  return kept.address;
}

void BlockPool::GiveBackUntil(int64_t reserved) {
  while (!kept_by_age_.empty() && live_bytes_ + kept_bytes_ > reserved) {
    const auto oldest_at = kept_by_age_.begin();
    const Kept oldest = *oldest_at;
    const auto [begin, end] = kept_by_size_.equal_range(oldest.size);
    kept_by_size_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == oldest_at; }));
    kept_by_age_.pop_front();
    kept_bytes_ -= oldest.size;
    ToSystem(oldest.address, oldest.size);
  }
}

void* BlockPool::Allocate(size_t bytes) {
  const int64_t wanted = BlockSize(bytes);
  const Category category = CurrentCategory();
  absl::MutexLock lock(&mutex_);
  if (limit_ > 0 && live_bytes_ + wanted > limit_) {
    ++refused_;
    return nullptr;
  }
  int64_t size = wanted;
  const int64_t kept_before = kept_bytes_;
  void* address = TakeKept(wanted);
  if (address != nullptr) {
    size = kept_before - kept_bytes_;
  } else {
    int64_t most = std::max(highest_live_, live_bytes_ + wanted) + options_.slack_bytes;
    if (limit_ > 0) most = std::min(most, limit_);
    GiveBackUntil(most - wanted);
    address = FromSystem(wanted);
    if (address == nullptr) {
      GiveBackUntil(0);
      address = FromSystem(wanted);
    }
  }
  if (address == nullptr) {
    ++refused_;
    return nullptr;
  }
  blocks_.emplace(address, Block{size, category});
  live_bytes_ += size;
  live_[category] += size;
  highest_live_ = std::max(highest_live_, live_bytes_);
  if (live_bytes_ > peak_bytes_) {
    peak_bytes_ = live_bytes_;
    at_peak_ = live_;
    at_peak_[Category::kAllocatorSlack] = kept_bytes_;
  }
  return address;
}

void BlockPool::Free(void* block) {
  if (block == nullptr) return;
  absl::MutexLock lock(&mutex_);
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) std::abort();
  const Block info = found->second;
  blocks_.erase(found);
  live_bytes_ -= info.size;
  live_[info.category] -= info.size;
  kept_by_age_.push_back({block, info.size});
  kept_by_size_.emplace(info.size, std::prev(kept_by_age_.end()));
  kept_bytes_ += info.size;
}

void BlockPool::SetLimit(int64_t limit_bytes) {
  absl::MutexLock lock(&mutex_);
  limit_ = limit_bytes;
  if (limit_ > 0) GiveBackUntil(limit_);
}

void BlockPool::ResetPeak() {
  absl::MutexLock lock(&mutex_);
  peak_bytes_ = live_bytes_;
  at_peak_ = live_;
  at_peak_[Category::kAllocatorSlack] = kept_bytes_;
}

BlockPool::Usage BlockPool::GetUsage() const {
  absl::MutexLock lock(&mutex_);
  Usage usage{live_, at_peak_, peak_bytes_, limit_, refused_};
  usage.live[Category::kAllocatorSlack] = kept_bytes_;
  return usage;
}

void BlockPool::Trim() {
  absl::MutexLock lock(&mutex_);
  GiveBackUntil(0);
}

}  // namespace lockstep::memory
