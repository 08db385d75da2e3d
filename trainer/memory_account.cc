#include "trainer/memory_account.h"

#include <algorithm>

namespace lockstep {
namespace {

using memory::Category;

int64_t AnonymousOutsideOfTheHeap(const HeapBytes& heap) {
  const ResidentBytes resident = GetResidentBytes();
  return std::max<int64_t>(resident.total - resident.file - resident.shared_memory - heap.in_use - heap.free, 0);
}

}  // namespace

MemoryAccount::MemoryAccount(const memory::BlockPool& pool, int64_t limit_bytes)
    : pool_(pool),
      limit_bytes_(limit_bytes),
      data_bytes_(AnonymousOutsideOfTheHeap(GetHeapBytes(pool.region()))),
      runtime_heap_bytes_(GetHeapBytes().in_use) {}

void MemoryAccount::Settle(const OwnedBytes& owned) { runtime_heap_bytes_ = std::max<int64_t>(GetHeapBytes().in_use - owned.in_heap, 0); }

MemoryFigures MemoryAccount::Take(const OwnedBytes& owned) const {
  const memory::BlockPool::Usage usage = pool_.GetUsage();
  const ResidentBytes resident = GetResidentBytes();
  MemoryFigures figures;
  // As it was at the highest moment: between steps there are no activations. What the pool holds beyond that is slack.
  figures.bytes = usage.at_peak;
  figures.bytes[Category::kAllocatorSlack] =
      std::max<int64_t>(usage.live.Total() - usage.peak_bytes, 0) + GetHeapBytes(pool_.region()).free;
  figures.bytes[Category::kGradients] += owned.gradients;
  figures.bytes[Category::kCommunication] += owned.communication;
  figures.bytes[Category::kInputPipeline] += owned.input_pipeline;
  figures.bytes[Category::kRuntime] += resident.file + data_bytes_ + runtime_heap_bytes_;
  figures.resident_bytes = resident.total;
  figures.bytes[Category::kUnaccounted] = std::max<int64_t>(resident.total - figures.bytes.Total(), 0);
  figures.peak_bytes = usage.peak_bytes + owned.gradients;
  figures.limit_bytes = limit_bytes_;
  for (size_t i = 0; i < memory::kPhases; ++i) {
    const memory::BlockPool::HighWater& high = usage.high_water[i];
    if (high.bytes == 0) continue;
    figures.high_water.push_back({std::string(PhaseName(static_cast<memory::Phase>(i))), high.layer, high.bytes + owned.gradients});
  }
  return figures;
}

}  // namespace lockstep
