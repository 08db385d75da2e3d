#pragma once
// The trainer's account of its memory (law 5): each category from its own source, and what the kernel says beside them. No libtorch.
// Thread-safe: const after construction.

#include <cstdint>

#include "memory/block_pool.h"
#include "trainer/records.h"

namespace lockstep {

class MemoryAccount {
 public:
  // What is resident now is the runtime's own: call it when libraries are loaded, and before a model is. `limit_bytes`: of tensor
  // memory, gradients included; 0: none.
  MemoryAccount(const memory::BlockPool& pool, int64_t limit_bytes);

  // Gradient sums (with what peers send) and the input pipeline's bytes are told by their owners.
  MemoryFigures Take(int64_t gradient_bytes, int64_t pipeline_bytes) const;

 private:
  const memory::BlockPool& pool_;
  const int64_t limit_bytes_;
  const int64_t runtime_bytes_;
};

}  // namespace lockstep
