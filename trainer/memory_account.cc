#include "trainer/memory_account.h"

#include <algorithm>

#include "trainer/process_figures.h"

namespace lockstep {

using memory::Category;

MemoryAccount::MemoryAccount(const memory::BlockPool& pool, int64_t limit_bytes)
    : pool_(pool), limit_bytes_(limit_bytes), runtime_bytes_(GetResidentBytes().total) {}

MemoryFigures MemoryAccount::Take(int64_t gradient_bytes, int64_t pipeline_bytes) const {
  const memory::BlockPool::Usage usage = pool_.GetUsage();
  MemoryFigures figures;
  // As it was at the highest moment: between steps there are no activations. What the pool holds beyond that is slack.
  figures.bytes = usage.at_peak;
  figures.bytes[Category::kAllocatorSlack] = std::max<int64_t>(usage.live.Total() - usage.peak_bytes, 0);
  figures.bytes[Category::kGradients] += gradient_bytes;
  figures.bytes[Category::kInputPipeline] += pipeline_bytes;
  figures.bytes[Category::kRuntime] += runtime_bytes_;
  figures.resident_bytes = GetResidentBytes().total;
  figures.bytes[Category::kUnaccounted] = std::max<int64_t>(figures.resident_bytes - figures.bytes.Total(), 0);
  figures.peak_bytes = usage.peak_bytes + gradient_bytes;
  figures.limit_bytes = limit_bytes_;
  return figures;
}

}  // namespace lockstep
