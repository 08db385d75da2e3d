#pragma once
// memory's model of the CUDA allocator and the real one, given the same requests, and compared after each.
//
// Not thread-safe.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "memory/cuda_allocator.h"
#include "memory/trace.h"
#include "tests/cuda/real_allocator.h"

namespace lockstep {

class SideBySide {
 public:
  // As RealAllocator. The model places at the lowest address; where the real one does not, refusals alone are compared.
  explicit SideBySide(int64_t limit_bytes = 0, RealAllocator::LimitBy by = RealAllocator::LimitBy::kFraction,
                      RealAllocator::Placement placement = RealAllocator::Placement::kLowest);
  // Releases what is held.
  ~SideBySide();
  SideBySide(const SideBySide&) = delete;
  SideBySide& operator=(const SideBySide&) = delete;

  // The number of the block; nullopt: refused. 0 bytes are asked of the model only, and are a number.
  std::optional<size_t> Allocate(int64_t bytes);
  // Once; again it does nothing.
  void Release(size_t block);
  // As ReplayOnCuda does it. False: a request was refused.
  bool Replay(const std::vector<std::pair<memory::Category, int64_t>>& state_blocks, const memory::Trace& step, int steps);

  // The first that differed: address, size, what is reserved, a refusal. Empty: nothing.
  const std::string& difference() const { return difference_; }
  const memory::CudaAllocator& model() const { return model_; }
  RealAllocator::Usage real() const { return real_.usage(); }
  size_t events() const { return events_; }

 private:
  struct Block {
    int64_t address = 0;
    int32_t handle = memory::CudaAllocator::kNoBlock;
    bool held = false;
  };

  void Compare(const std::string& event);
  void Note(const std::string& difference);

  const bool same_placement_;
  RealAllocator real_;
  memory::CudaAllocator model_;
  std::vector<Block> blocks_;
  size_t events_ = 0;
  std::string difference_;
};

}  // namespace lockstep
