#pragma once
// What the pool itself adds to a recorded sequence: the same requests are made of a pool of their own, whose blocks nobody touches, so that
// they are address space and no memory.

#include <cstdint>

#include "memory/trace.h"

namespace lockstep::memory {

// The bytes that the pool keeps beyond its highest live ones after a few steps on one thread, with `standing` bytes live all the time and
// `copy` bytes during half of the steps. At most BlockPool::Options::slack_bytes, which is also the answer where the machine has no address
// space for a replay.
int64_t KeptBeyondPeak(const Trace& step, int64_t standing, int64_t copy);

}  // namespace lockstep::memory
