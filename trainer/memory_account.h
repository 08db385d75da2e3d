#pragma once
// The trainer's account of its memory (law 5): each category from its own source, and what the kernel says beside them. No libtorch.
// docs/metrics.md says how each is measured.
//
// The runtime's share of the heap is what the libraries hold once they are warm: Settle says when. What the heap grows by afterwards
// belongs to nobody, so that a leak shows in `unaccounted`.
//
// Not thread-safe.

#include <cstdint>

#include "memory/block_pool.h"
#include "trainer/process_figures.h"
#include "trainer/records.h"

namespace lockstep {

// Of memory outside of the tensors' pool, as its owners tell it.
struct OwnedBytes {
  int64_t gradients = 0;
  int64_t communication = 0;
  int64_t input_pipeline = 0;
  int64_t in_heap = 0;  // how much of these came from malloc
};

class MemoryAccount {
 public:
  // Call it when libraries are loaded, and before a model is. `limit_bytes`: of tensor memory, gradients included; 0: none.
  MemoryAccount(const memory::BlockPool& pool, int64_t limit_bytes);

  // After the first step, and whenever something was done for the first time. `owned` as it is now.
  void Settle(const OwnedBytes& owned);
  // 1 to 2 ms.
  MemoryFigures Take(const OwnedBytes& owned) const;

 private:
  const memory::BlockPool& pool_;
  const int64_t limit_bytes_;
  const int64_t data_bytes_;  // anonymous and not heap: relocated tables, static data, stacks
  int64_t runtime_heap_bytes_;
};

}  // namespace lockstep
