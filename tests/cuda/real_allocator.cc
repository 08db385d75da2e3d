#include "tests/cuda/real_allocator.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include <cmath>
#include <cstdlib>

#include "tests/cuda/fake_cudart.h"

namespace lockstep {
namespace {

namespace cuda = c10::cuda::CUDACachingAllocator;

// A power of two, so that every limit is a fraction of it without rounding.
constexpr int64_t kTotal = int64_t{1} << 40;
constexpr size_t kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

}  // namespace

RealAllocator::RealAllocator(int64_t limit_bytes, LimitBy by) {
  static const bool initialised = [] {
    cuda::init(1);
    return true;
  }();
  (void)initialised;
  if (fake_cudart_held() != 0) std::abort();
  fake_cudart_set_total(kTotal);
  const bool fraction = limit_bytes > 0 && by == LimitBy::kFraction;
  cuda::setMemoryFraction(fraction ? std::ldexp(static_cast<double>(limit_bytes), -40) : 1, 0);
  if (limit_bytes > 0 && !fraction) fake_cudart_set_total(static_cast<size_t>(limit_bytes));
  cuda::resetAccumulatedStats(0);
  cuda::resetPeakStats(0);
}

RealAllocator::~RealAllocator() { cuda::emptyCache(); }

std::optional<void*> RealAllocator::Allocate(int64_t bytes) {
  try {
    return cuda::raw_alloc(static_cast<size_t>(bytes));
  } catch (const c10::OutOfMemoryError&) {
    return std::nullopt;
  }
}

void RealAllocator::Release(void* address) { cuda::raw_delete(address); }

RealAllocator::Usage RealAllocator::usage() const {
  const auto stats = cuda::getDeviceStats(0);
  return {stats.allocated_bytes[kAll].current, stats.reserved_bytes[kAll].current, stats.allocated_bytes[kAll].peak,
          stats.reserved_bytes[kAll].peak, stats.num_alloc_retries};
}

}  // namespace lockstep
