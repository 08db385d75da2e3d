#pragma once
// Who takes part in a generation, and which leaves each rank computes. Plain data and pure functions.

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "allreduce/layout.h"
#include "allreduce/tree.h"

namespace lockstep::allreduce {

struct Membership {
  uint64_t generation = 0;
  int leaves = 0;
  std::vector<LeafRange> runs;  // by rank
  int rank = 0;                 // ours

  int ranks() const { return static_cast<int>(runs.size()); }
  std::vector<Subtree> SubtreesOf(int of_rank) const { return MaximalSubtrees(leaves, runs[static_cast<size_t>(of_rank)]); }
};

// InvalidArgument unless the runs are 0 … leaves-1 in order, none of them empty, and the rank has one.
absl::Status Validate(const Membership& membership);

// What must be equal among ranks: leaves, runs and layout, as one number (XXH3-64).
uint64_t Fingerprint(const Membership& membership, const Layout& layout);

}  // namespace lockstep::allreduce
