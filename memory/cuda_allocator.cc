#include "memory/cuda_allocator.h"

#include <algorithm>

namespace lockstep::memory {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kUnit = 512;
constexpr int64_t kLargestSmall = kMiB;
constexpr int64_t kSmallSegment = 2 * kMiB;
constexpr int64_t kLargeSegment = 20 * kMiB;
constexpr int64_t kOwnSegment = 10 * kMiB;  // from here on a request has a segment of its size
constexpr int64_t kSegmentUnit = 2 * kMiB;

int64_t RoundUp(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

int64_t CudaAllocator::BlockSize(int64_t bytes) { return RoundUp(bytes, kUnit); }

int64_t CudaAllocator::SegmentSize(int64_t block_bytes) {
  if (block_bytes <= kLargestSmall) return kSmallSegment;
  return block_bytes < kOwnSegment ? kLargeSegment : RoundUp(block_bytes, kSegmentUnit);
}

int32_t CudaAllocator::Add(const Block& block) {
  if (unused_.empty()) {
    blocks_.push_back(block);
    return static_cast<int32_t>(blocks_.size()) - 1;
  }
  const int32_t index = unused_.back();
  unused_.pop_back();
  At(index) = block;
  return index;
}

std::optional<int32_t> CudaAllocator::AddSegment(int64_t size, bool small) {
  if (limit_bytes_ > 0 && usage_.reserved + size > limit_bytes_) return std::nullopt;
  int64_t address = 0;
  for (const auto& [begin, segment_size] : segments_) {
    if (begin - address >= size) break;
    address = begin + segment_size;
  }
  segments_[address] = size;
  usage_.reserved += size;
  usage_.peak_reserved = std::max(usage_.peak_reserved, usage_.reserved);
  return Add({.address = address, .size = size, .small = small});
}

std::optional<int32_t> CudaAllocator::Allocate(int64_t bytes) {
  if (bytes == 0) return kNoBlock;
  const int64_t size = BlockSize(bytes);
  const bool small = size <= kLargestSmall;
  Pool& pool = small ? small_ : large_;
  std::optional<int32_t> found;
  if (const auto fit = pool.lower_bound({size, 0, 0}); fit != pool.end()) {
    found = fit->index;
    pool.erase(fit);
  } else {
    found = AddSegment(SegmentSize(size), small);
    if (!found.has_value()) {
      ReleaseCached();
      ++usage_.flushes;
      found = AddSegment(SegmentSize(size), small);
    }
    if (!found.has_value()) return std::nullopt;
  }
  const int64_t rest = At(*found).size - size;
  const int32_t index = (small ? rest >= kUnit : rest > kLargestSmall) ? Cut(*found, size) : *found;
  At(index).held = true;
  usage_.allocated += At(index).size;
  usage_.peak_allocated = std::max(usage_.peak_allocated, usage_.allocated);
  return index;
}

int32_t CudaAllocator::Cut(int32_t index, int64_t size) {
  const Block whole = At(index);
  const int32_t front = Add({.address = whole.address, .size = size, .before = whole.before, .after = index, .small = whole.small});
  if (whole.before != kNoBlock) At(whole.before).after = front;
  Block& rest = At(index);
  rest.before = front;
  rest.address += size;
  rest.size -= size;
  PoolOf(rest).insert(KeyOf(index));
  return front;
}

void CudaAllocator::Release(int32_t handle) {
  if (handle == kNoBlock) return;
  Block& block = At(handle);
  block.held = false;
  usage_.allocated -= block.size;
  Join(handle, block.before);
  Join(handle, block.after);
  PoolOf(block).insert(KeyOf(handle));
}

void CudaAllocator::Join(int32_t index, int32_t neighbour) {
  if (neighbour == kNoBlock || At(neighbour).held) return;
  Block& block = At(index);
  const Block& other = At(neighbour);
  PoolOf(other).erase(KeyOf(neighbour));
  block.size += other.size;
  if (block.before == neighbour) {
    block.address = other.address;
    block.before = other.before;
    if (block.before != kNoBlock) At(block.before).after = index;
  } else {
    block.after = other.after;
    if (block.after != kNoBlock) At(block.after).before = index;
  }
  unused_.push_back(neighbour);
}

void CudaAllocator::ReleaseCached() {
  ReleaseCached(large_);
  ReleaseCached(small_);
}

void CudaAllocator::ReleaseCached(Pool& pool) {
  for (auto free = pool.begin(); free != pool.end();) {
    const Block& block = At(free->index);
    if (block.before != kNoBlock || block.after != kNoBlock) {
      ++free;
      continue;
    }
    segments_.erase(block.address);
    usage_.reserved -= block.size;
    unused_.push_back(free->index);
    free = pool.erase(free);
  }
}

namespace {

// The allocator with what it holds by category, as it was when that was most.
class BookedAllocator {
 public:
  struct Booked {
    int32_t handle = CudaAllocator::kNoBlock;
    Category category = Category::kRuntime;
  };

  explicit BookedAllocator(int64_t limit_bytes) : allocator_(limit_bytes) {}

  std::optional<Booked> Allocate(Category category, int64_t bytes, const std::string& place) {
    const std::optional<int32_t> handle = allocator_.Allocate(bytes);
    if (!handle.has_value()) return std::nullopt;
    if (*handle != CudaAllocator::kNoBlock) live_[category] += allocator_.SizeOf(*handle);
    if (const int64_t allocated = allocator_.usage().allocated; allocated > replay_.peak_allocated) {
      replay_.peak_allocated = allocated;
      replay_.by_category = live_;
      replay_.place = place;
    }
    return Booked{*handle, category};
  }

  void Release(const Booked& block) {
    if (block.handle == CudaAllocator::kNoBlock) return;
    live_[block.category] -= allocator_.SizeOf(block.handle);
    allocator_.Release(block.handle);
  }

  CudaReplay Result(bool fits) {
    replay_.fits = fits;
    replay_.peak_reserved = allocator_.usage().peak_reserved;
    replay_.by_category[Category::kAllocatorSlack] += replay_.peak_reserved - replay_.peak_allocated;
    return replay_;
  }

 private:
  CudaAllocator allocator_;
  Bytes live_;
  CudaReplay replay_;
};

}  // namespace

CudaReplay ReplayOnCuda(absl::Span<const std::pair<Category, int64_t>> state_blocks, const Trace& step, int steps, int64_t limit_bytes) {
  BookedAllocator allocator(limit_bytes);
  for (const auto& [category, bytes] : state_blocks) {
    if (!allocator.Allocate(category, bytes, "").has_value()) return allocator.Result(false);
  }
  for (int i = 0; i < steps; ++i) {
    std::vector<BookedAllocator::Booked> blocks;  // by number; kNoBlock once released
    for (const Trace::Event& event : step.events) {
      if (event.release) {
        allocator.Release(std::exchange(blocks[static_cast<size_t>(event.block)], {}));
        continue;
      }
      const auto block = allocator.Allocate(event.category, event.bytes, step.places[static_cast<size_t>(event.place)]);
      if (!block.has_value()) return allocator.Result(false);
      blocks.push_back(*block);
    }
    for (const BookedAllocator::Booked& block : blocks) allocator.Release(block);
  }
  return allocator.Result(true);
}

}  // namespace lockstep::memory
