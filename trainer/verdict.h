#pragma once
// The verdict: what replicas tell each other beside the gradients of a step, and what follows from all of it together. Pure
// functions; no libtorch.
//
// Sums over virtual replicas are folded in float64 along the same fixed tree as the gradients, so that the loss and the metrics
// that are printed, and what early stopping decides by them, do not depend on who held which virtual replica.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/leaf_result.h"

namespace lockstep {

// What one virtual replica consumed.
struct LeafUse {
  std::vector<int64_t> samples;  // in batch order
  std::vector<int64_t> bad;      // among them: could not be decoded
  uint64_t digest = 0;

  // Those that the step used.
  std::vector<int64_t> Good() const;
};

// What a replica says beside its figures.
struct Word {
  bool cancel = false;
  bool pause = false;
  std::string state_hash;          // after the last committed step; empty: it was not computed
  uint64_t durable_step = 0;       // as far as this replica knows
  uint64_t newest_generation = 0;  // that it was told of
};

// One replica's part.
struct Verdict : Word {
  std::vector<LeafResult> leaves;
  // Of none of them in particular: a request was refused, be it that a library went another way then.
  bool out_of_memory = false;
  std::string error;
};

// Of all replicas together.
struct JointVerdict {
  bool cancel = false;
  bool pause = false;  // some replica was told so
  bool out_of_memory = false;
  std::vector<int> ranks_out_of_memory;  // in order
  uint64_t durable_step = 0;             // as far as any replica knows
  uint64_t newest_generation = 0;        // that any replica was told of
  // Replicas whose state is not that of most, by rank, and who has which: nothing of this step counts. All, if no state is that of most.
  std::vector<int> divergent;
  std::string divergence;
  std::string error;  // empty: the step may be committed; else the first rank's, by rank, of those that ran out of memory if any did
  int64_t samples = 0;
  double loss_sum = 0;
  std::vector<SumAndCount> metrics;
  uint64_t sample_digest = 0;   // XXH3-64 over the leaves' digests, in their order
  std::vector<LeafUse> leaves;  // in order of virtual replica
  std::vector<BadSample> bad;   // in order of virtual replica
};

// At most allreduce::kMaxVerdictBytes, if no more samples are in it than MostSamplesInVerdict: reasons of bad samples and errors are cut
// if it would be more.
std::string EncodeVerdict(const Verdict& verdict);
// Of a batch whose samples' numbers are below `samples`, over so many virtual replicas: a step's record must name them all.
int64_t MostSamplesInVerdict(int64_t samples, int virtual_replicas);

// `encoded` by rank. DataLoss if one cannot be read, or the leaves are not 0 … leaves-1, each once.
absl::StatusOr<JointVerdict> JoinVerdicts(const std::vector<std::string>& encoded, int leaves);

}  // namespace lockstep
