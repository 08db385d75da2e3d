#include "tests/cuda/real_allocator.h"

#include <c10/cuda/CUDACachingAllocator.h>

#include <cstdlib>

#include "tests/cuda/fake_cudart.h"

// c10 lets go of its devices' allocators as the process ends, without freeing them. Called by LeakSanitizer where there is one.
extern "C" const char* __lsan_default_suppressions() { return "leak:NativeCachingAllocator::init\n"; }

namespace lockstep {
namespace {

namespace cuda = c10::cuda::CUDACachingAllocator;

constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

}  // namespace

RealAllocator::RealAllocator(int64_t limit_bytes, LimitBy by, Placement placement) {
  [[maybe_unused]] static const bool initialised = (cuda::init(1), true);
  if (fake_cudart_held() != 0) std::abort();
  const bool fraction = limit_bytes > 0 && by == LimitBy::kFraction;
  // The device has a power of two, so that nothing is rounded.
  cuda::setMemoryFraction(fraction ? static_cast<double>(limit_bytes) / static_cast<double>(kFakeCudartMost) : 1, 0);
  fake_cudart_set_total(limit_bytes > 0 && !fraction ? static_cast<size_t>(limit_bytes) : kFakeCudartMost);
  fake_cudart_give_highest(placement == Placement::kHighest);
  cuda::resetAccumulatedStats(0);
  cuda::resetPeakStats(0);
}

RealAllocator::~RealAllocator() { cuda::emptyCache(); }

std::optional<int64_t> RealAllocator::Allocate(int64_t bytes) {
  try {
    return static_cast<int64_t>(reinterpret_cast<uintptr_t>(cuda::raw_alloc(static_cast<size_t>(bytes))) - kFakeCudartFirst);
  } catch (const c10::Error&) {
    // Not always its OutOfMemoryError: where there is a driver, asking that for the message's figures fails first.
    return std::nullopt;
  }
}

void RealAllocator::Release(int64_t address) {
  cuda::raw_delete(reinterpret_cast<void*>(kFakeCudartFirst + static_cast<uintptr_t>(address)));
}

RealAllocator::Usage RealAllocator::usage() const {
  const auto stats = cuda::getDeviceStats(0);
  return {.allocated = stats.allocated_bytes[kAll].current,
          .reserved = stats.reserved_bytes[kAll].current,
          .peak_allocated = stats.allocated_bytes[kAll].peak,
          .peak_reserved = stats.reserved_bytes[kAll].peak,
          .flushes = stats.num_alloc_retries};
}

}  // namespace lockstep
