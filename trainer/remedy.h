#pragma once
// What is done where a step ran out of memory, before it is taken again: the next remedy that keeps the bits. Pure functions; no libtorch.
//
// The replicas of a job tell each other how far each has come (a joiner has not come far), and all go on from the furthest: so they
// decide alike, and give up alike.

#include <cstdint>
#include <vector>

#include "trainer/run_spec.h"

namespace lockstep {

// In this order.
enum class Remedy {
  kGiveBack,      // freed memory that is kept for later goes back to the machine
  kFewerThreads,  // half as many virtual replicas side by side
  kRecompute,     // the next of the planned recomputations
  kAgain,         // as it is: memory may have been short for another reason
  kNone,
};

// How far a replica has come.
struct Remedies {
  int32_t threads = 1;
  int32_t recomputations = 0;  // how many of those that were planned were taken up, one after another
  int32_t again = 0;           // kAgain, since a step was committed or a pass was whole
  uint64_t gave_back = 0;      // 1 + the steps that were committed when memory was given back last; 0: never
  friend bool operator==(const Remedies&, const Remedies&) = default;
};

struct RemedyLimits {
  int most_leaves = 1;     // that a replica computes: more threads than that do nothing
  int recomputations = 0;  // planned
  bool allowed = true;     // the job lets remedies be applied; else memory is given back, and the step taken again, and no more
  uint64_t step = 0;       // committed
};

// After memory was given back, whatever runs out within so many steps needs more than that.
inline constexpr uint64_t kGivenBackHolds = 20;
inline constexpr int kMostAgain = 3;

// Each at its furthest. REQUIRES: there are some.
Remedies Furthest(const std::vector<Remedies>& all);

struct RemedyChoice {
  Remedy remedy = Remedy::kNone;
  Remedies after;
};

RemedyChoice NextRemedy(const Remedies& now, const RemedyLimits& limits);

// The largest batch, with as many virtual replicas, whose steps take so many bytes less than the job's, by what planning found of a sample;
// 0: not known, or there is none.
int64_t BatchThatWouldDo(const RunSpec& spec, int64_t missing_bytes);

}  // namespace lockstep
