#pragma once
// Puts a BlockPool under libtorch: every CPU tensor of the process is counted, limited and cached by it. What the pool refuses
// is thrown as c10::OutOfMemoryError, the error that libtorch throws for a GPU.

#include "memory/block_pool.h"

namespace lockstep::memory {

// The pool behind libtorch's CPU tensors, installed at the first call and alive until the process ends. Call it before any
// tensor is made. Thread-safe.
BlockPool& CpuTensorPool();

}  // namespace lockstep::memory
