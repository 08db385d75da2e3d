#include "memory/block_pool.h"

#include <sanitizer/asan_interface.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/node_hash_set.h"
#include "memory/place.h"
#include "memory/trace.h"

namespace lockstep::memory {
namespace {

// What is given back at once while other threads wait.
constexpr int64_t kGiveBackSlice = 16 << 20;

// The name of a layer, as one that lives for good, though its model may not. There are not many.
const char* Lasting(std::string_view layer) {
  if (layer.empty()) return "";
  // Requests of one layer come one after another.
  thread_local std::string_view newest;
  thread_local const char* newest_name = "";
  if (layer.data() == newest.data() && layer.size() == newest.size()) return newest_name;
  static auto* const mutex = new absl::Mutex;
  static auto* const names = new absl::node_hash_set<std::string>;
  absl::MutexLock lock(mutex);
  newest = layer;
  newest_name = names->emplace(layer).first->c_str();
  return newest_name;
}

// Whether the thread raised the high-water mark of backward since it was last through with a layer. Its address is the thread's name.
thread_local bool raised = false;

int64_t WholePages(int64_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

}  // namespace

BlockPool::BlockPool(Options options) : options_(options) {
  if (region_.size() > 0) cold_.Add({0, region_.size()}, 0);
}

int64_t BlockPool::BlockSize(size_t bytes) {
  const auto wanted = static_cast<int64_t>(std::max<size_t>(bytes, 1));
  return wanted <= Slabs::kLargestBlock ? Slabs::BlockSize(wanted) : WholePages(wanted);
}

void* BlockPool::Allocate(size_t bytes) {
  const Category category = CurrentCategory();
  Requests* const requests = Requests::Current();
  void* block = requests != nullptr && requests->NextMustFail() ? nullptr : Take(bytes, category);
  if (block == nullptr) {
    Refusal refusal = Refuse(bytes, category);
    if (requests != nullptr) requests->Add(std::move(refusal));
    return nullptr;
  }
  if (Recording* recording = Recording::Current(); recording != nullptr) {
    recording->Requested(block, static_cast<int64_t>(bytes), category);
  }
  return block;
}

void* BlockPool::Take(size_t bytes, Category category) {
  const char* const layer = Lasting(CurrentPlace().layer);
  absl::MutexLock lock(&mutex_);
  const int64_t size = bytes <= static_cast<size_t>(region_.size()) ? BlockSize(bytes) : -1;
  std::optional<int64_t> offset;
  if (size > 0 && (limit_ == 0 || size <= limit_ - live_bytes_)) offset = size <= Slabs::kLargestBlock ? TakeSmall(size) : TakePages(size);
  if (!offset) return nullptr;
  void* address = region_.At(*offset);
  ASAN_UNPOISON_MEMORY_REGION(address, bytes);
  blocks_.emplace(address, Block{size, layer, category});
  live_bytes_ += size;
  live_[category] += size;
  highest_live_ = std::max(highest_live_, live_bytes_);
  Raise();
  if (live_bytes_ > peak_bytes_) {
    peak_bytes_ = live_bytes_;
    at_peak_ = live_;
    at_peak_[Category::kAllocatorSlack] = Kept();
  }
  return address;
}

Refusal BlockPool::Refuse(size_t bytes, Category category) {
  Refusal refusal;
  refusal.bytes = static_cast<int64_t>(bytes);
  refusal.category = category;
  refusal.place = Text(CurrentPlace());
  absl::flat_hash_map<const char*, int64_t> by_layer;
  absl::MutexLock lock(&mutex_);
  ++refused_;
  refusal.limit_bytes = limit_;
  if (limit_ > 0 && refusal.bytes >= 0 && refusal.bytes <= region_.size()) {
    refusal.missing_bytes = std::max<int64_t>(live_bytes_ + BlockSize(bytes) - limit_, 0);
  }
  refusal.live = live_;
  for (const auto& [address, block] : blocks_) {
    if (*block.layer != '\0') by_layer[block.layer] += block.size;
  }
  refusal.layers.assign(by_layer.begin(), by_layer.end());
  std::sort(refusal.layers.begin(), refusal.layers.end(), [](const auto& a, const auto& b) {
    return std::pair(-a.second, std::string_view(a.first)) < std::pair(-b.second, std::string_view(b.first));
  });
  last_refusal_ = refusal;
  return refusal;
}

void BlockPool::Raise() {
  const Place& place = CurrentPlace();
  HighWater& high = high_water_[static_cast<size_t>(place.phase)];
  if (live_bytes_ <= high.bytes) return;
  high.bytes = live_bytes_;
  high.layer = place.layer;
  if (place.phase != Phase::kBackward) return;
  raised = true;
  raised_by_ = &raised;
}

void BlockPool::Mark() {
  absl::MutexLock lock(&mutex_);
  Raise();
}

void BlockPool::EndOf(std::string_view layer) {
  if (!raised) return;
  raised = false;
  absl::MutexLock lock(&mutex_);
  if (raised_by_ == &raised) high_water_[static_cast<size_t>(Phase::kBackward)].layer = layer;
}

std::optional<int64_t> BlockPool::TakeSmall(int64_t size) {
  if (const auto block = slabs_.Take(size)) return block;
  const auto pages = TakePages(Slabs::kSlabBytes);
  if (!pages) return std::nullopt;
  slabs_.AddSlab({*pages, Slabs::kSlabBytes}, size);
  return slabs_.Take(size);
}

std::optional<int64_t> BlockPool::TakePages(int64_t size) {
  if (const auto fit = kept_.BestFit(size)) {
    kept_.Remove({fit->begin, size});
    return fit->begin;
  }
  if (const auto cold = TakeCold(size)) return cold;
  GiveBack(kept_.bytes());
  return TakeCold(size);
}

std::optional<int64_t> BlockPool::TakeCold(int64_t size) {
  // The larger the kept range that grows, the fewer the fresh pages.
  const Range start = kept_.LargestBefore(cold_, size);
  if (start.size > 0) kept_.Remove(start);
  int64_t most = std::max(highest_live_, live_bytes_ + size) + options_.slack_bytes;
  if (limit_ > 0) most = std::min(most, limit_);
  GiveBack(live_bytes_ + Kept() + size - most);
  const std::optional<Range> cold = start.size > 0 ? Range{start.end(), size - start.size} : cold_.BestFit(size);
  if (cold && Warm({cold->begin, start.size > 0 ? cold->size : size})) return start.size > 0 ? start.begin : cold->begin;
  if (start.size > 0) kept_.Add(start, freed_);
  return std::nullopt;
}

bool BlockPool::Warm(Range pages) {
  if (!region_.Open(pages.end())) return false;
  cold_.Remove(pages);
  return true;
}

void BlockPool::GiveBack(int64_t bytes) {
  for (int64_t left = WholePages(bytes); left > 0 && kept_.bytes() > 0;) {
    const Range oldest = kept_.Oldest();
    const int64_t size = std::min(oldest.size, left);
    const Range part{oldest.end() - size, size};
    kept_.Remove(part);
    region_.GiveBack(part);
    cold_.Add(part, freed_);
    left -= size;
  }
}

void BlockPool::Free(void* block) {
  if (block == nullptr) return;
  if (Recording* recording = Recording::Current(); recording != nullptr) recording->Released(block);
  absl::MutexLock lock(&mutex_);
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) std::abort();
  const Block info = found->second;
  blocks_.erase(found);
  ASAN_POISON_MEMORY_REGION(block, static_cast<size_t>(info.size));
  live_bytes_ -= info.size;
  live_[info.category] -= info.size;
  std::optional<Range> pages = Range{region_.OffsetOf(block), info.size};
  if (info.size <= Slabs::kLargestBlock) pages = slabs_.Put(pages->begin);
  if (pages) kept_.Add(*pages, ++freed_);
  // A limit that was set below what was live.
  if (limit_ > 0) GiveBack(live_bytes_ + Kept() - limit_);
}

void BlockPool::SetLimit(int64_t limit_bytes) {
  {
    absl::MutexLock lock(&mutex_);
    limit_ = limit_bytes;
  }
  if (limit_bytes > 0) GiveBackAbove(limit_bytes);
}

void BlockPool::ResetPeak() {
  absl::MutexLock lock(&mutex_);
  peak_bytes_ = live_bytes_;
  at_peak_ = live_;
  at_peak_[Category::kAllocatorSlack] = Kept();
}

BlockPool::Usage BlockPool::GetUsage() const {
  absl::MutexLock lock(&mutex_);
  Usage usage{live_, at_peak_, peak_bytes_, limit_, refused_, high_water_};
  usage.live[Category::kAllocatorSlack] = Kept();
  return usage;
}

std::optional<Refusal> BlockPool::LastRefusal() const {
  absl::MutexLock lock(&mutex_);
  return last_refusal_;
}

void BlockPool::Trim() { GiveBackAbove(0); }

void BlockPool::GiveBackAbove(int64_t reserved) {
  // In slices, so that a thread that allocates meanwhile does not wait for all of it.
  for (bool more = true; more;) {
    absl::MutexLock lock(&mutex_);
    GiveBack(std::min(live_bytes_ + Kept() - reserved, kGiveBackSlice));
    more = kept_.bytes() > 0 && live_bytes_ + Kept() > reserved;
  }
}

const void* BlockPool::region() const {
  absl::MutexLock lock(&mutex_);
  return region_.size() > 0 ? region_.At(0) : nullptr;
}

int64_t BlockPool::ResidentBytes() const {
  absl::MutexLock lock(&mutex_);
  return region_.ResidentBytes();
}

}  // namespace lockstep::memory
