// memory's model of the CUDA allocator beside the real one: after each event of a sequence both hold the same bytes at the same addresses,
// have reserved as much, and have refused the same requests.

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <vector>

#include "memory/cuda_allocator.h"
#include "tests/cuda/real_allocator.h"

namespace lockstep {
namespace {

constexpr int64_t kMiB = 1 << 20;

TEST(CudaAllocatorModel, First) {
  for (int round = 0; round < 100; ++round) {
  std::mt19937 random(round);
  const int64_t limit = round % 3 == 0 ? 0 : (random() % 400 + 30) * kMiB + random() % kMiB;
  RealAllocator real(limit, round % 3 == 1 ? RealAllocator::LimitBy::kFraction : RealAllocator::LimitBy::kDevice);
  memory::CudaAllocator model(limit);
  std::vector<std::pair<void*, int32_t>> live;
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    if (!live.empty() && random() % 100 < 49) {
        std::swap(live[random() % live.size()], live.back());
        real.Release(live.back().first);
        model.Release(live.back().second);
        live.pop_back();
    } else {
      const int kind = random() % 4;
      const int64_t bytes = 1 + random() % (kind == 0 ? 3000 : kind == 1 ? 3'000'000 : kind == 2 ? 12'000'000 : 60'000'000);
      auto before = model.usage(); auto rb = real.usage();
      auto a = real.Allocate(bytes);
      auto b = model.Allocate(bytes);
      if (real.usage().reserved != model.usage().reserved) printf("limit %ld bytes %ld before %ld (real %ld) alloc %ld real after %ld model after %ld flushes real %ld model %ld ok %d %d\n", limit, bytes, before.reserved, rb.reserved, before.allocated, real.usage().reserved, model.usage().reserved, real.usage().flushes, model.usage().flushes, a.has_value(), b.has_value());
      ASSERT_EQ(a.has_value(), b.has_value()) << i;
      if (a) live.emplace_back(*a, *b);
      else ++refused;
      if (a) { ASSERT_EQ(reinterpret_cast<int64_t>(*a) - (int64_t{1} << 44), model.AddressOf(*b)) << i; }
    }
    ASSERT_EQ(real.usage().allocated, model.usage().allocated) << i;
    ASSERT_EQ(real.usage().reserved, model.usage().reserved) << i;
    ASSERT_EQ(real.usage().peak_reserved, model.usage().peak_reserved) << i;
    ASSERT_EQ(real.usage().flushes, model.usage().flushes) << i;
  }
  printf("%ld refused %d flushes %ld peak %ld\n", limit, refused, real.usage().flushes, real.usage().peak_reserved);
  for (auto [a, b] : live) real.Release(a);
  }
}

}  // namespace
}  // namespace lockstep
