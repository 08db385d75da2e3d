#include "trainer/memory_account.h"

#include "trainer/process_figures.h"

namespace lockstep {

using memory::Category;

MemoryAccount::MemoryAccount(const memory::BlockPool& pool, int64_t limit_bytes)
    : pool_(pool), limit_bytes_(limit_bytes), runtime_bytes_(GetResidentBytes().total) {}

MemoryFigures MemoryAccount::Take(int64_t gradient_bytes, int64_t pipeline_bytes) const {
  const memory::BlockPool::Usage usage = pool_.GetUsage();
  MemoryFigures figures;
  figures.bytes = usage.live;
  figures.bytes[Category::kGradients] += gradient_bytes;
  figures.bytes[Category::kInputPipeline] += pipeline_bytes;
  figures.bytes[Category::kRuntime] += runtime_bytes_;
  figures.resident_bytes = GetResidentBytes().total;
  figures.bytes[Category::kUnaccounted] = figures.resident_bytes - figures.bytes.Total();
  // The table shows activations at their height: between steps there are none.
  figures.bytes[Category::kActivations] = usage.at_peak[Category::kActivations];
  figures.peak_bytes = usage.peak_bytes + gradient_bytes;
  figures.limit_bytes = limit_bytes_;
  return figures;
}

}  // namespace lockstep
