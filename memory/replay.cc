#include "memory/replay.h"

#include <algorithm>
#include <vector>

#include "memory/block_pool.h"

namespace lockstep::memory {
namespace {

// False: a request was refused.
bool Take(const Trace& step, BlockPool& pool) {
  std::vector<void*> blocks;
  bool held = true;
  for (const Trace::Event& event : step.events) {
    const auto block = static_cast<size_t>(event.block);
    if (block >= blocks.size()) blocks.resize(block + 1);
    if (event.release) {
      pool.Free(blocks[block]);
      blocks[block] = nullptr;
    } else {
      blocks[block] = pool.Allocate(static_cast<size_t>(event.bytes));
      held = held && blocks[block] != nullptr;
    }
  }
  for (void* const left : blocks) pool.Free(left);
  return held;
}

}  // namespace

int64_t KeptBeyondPeak(const Trace& step, int64_t standing, int64_t copy) {
  const BlockPool::Options options;
  BlockPool pool(options);
  void* const state = pool.Allocate(static_cast<size_t>(standing));
  bool held = state != nullptr && Take(step, pool);
  void* const second = copy > 0 ? pool.Allocate(static_cast<size_t>(copy)) : nullptr;
  held = held && Take(step, pool);
  pool.Free(second);
  held = held && Take(step, pool);
  pool.Free(state);
  if (!held) return options.slack_bytes;
  const BlockPool::Usage usage = pool.GetUsage();
  return std::clamp<int64_t>(usage.live.Total() - usage.peak_bytes, 0, options.slack_bytes);
}

}  // namespace lockstep::memory
