#include "memory/cpu_allocator.h"

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>

namespace lockstep::memory {
namespace {

class PoolAllocator final : public c10::Allocator {
 public:
  explicit PoolAllocator(BlockPool* pool) : pool_(pool) {}

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &Delete, c10::Device(c10::DeviceType::CPU)};
    void* block = pool_->Allocate(bytes);
    if (block == nullptr) {
      const BlockPool::Usage usage = pool_->GetUsage();
      const int64_t live = usage.live.Total() - usage.live[Category::kAllocatorSlack];
      TORCH_CHECK_WITH(OutOfMemoryError, false, "out of memory: ", bytes, " bytes asked for with ", live, " in use of ",
                       usage.limit_bytes > 0 ? std::to_string(usage.limit_bytes) : std::string("what the machine has"));
    }
    return {block, block, &Delete, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Delete; }
  void copy_data(void* to, const void* from, std::size_t count) const override { std::memcpy(to, from, count); }

 private:
  static void Delete(void* block) { CpuTensorPool().Free(block); }

  BlockPool* const pool_;
};

}  // namespace

BlockPool& CpuTensorPool() {
  // Both live as long as the process: tensors in static storage are freed after main.
  static BlockPool* const pool = [] {
    auto* made = new BlockPool({});
    c10::SetCPUAllocator(new PoolAllocator(made), /*priority=*/255);
    return made;
  }();
  return *pool;
}

}  // namespace lockstep::memory
