#pragma once
// Which samples each virtual replica takes in each step: a pure function of (seed, epoch, step, virtual replica). No queue of
// shards to lose: a redo or a rescale simply asks again.
//
// An epoch's order keeps reading near-sequential: the samples, turned by an offset of the epoch's, are cut into blocks of
// neighbours, the blocks are permuted, runs of `window_blocks` of them are windows, and the samples of each window are
// permuted. A data set of less than two windows is permuted whole. Every permutation is a keyed Feistel network over the
// smallest even power of two that holds its domain, walked until it lands inside (Black and Rogaway, "Ciphers with arbitrary
// finite domains", 2002): constant memory, and on average less than four evaluations a place, however large the data set.
// docs/data.md has a worked example.
//
// Step s takes places [s · batch, (s + 1) · batch) of the order; virtual replica v the v-th contiguous slice of them. Of a
// last, partial batch the first slices are one longer where it does not divide, and some may be empty.
//
// Thread-safe: constant.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"

namespace lockstep::dataset {

struct SamplerOptions {
  int64_t num_samples = 0;
  int64_t batch = 0;  // global
  int virtual_replicas = 1;
  uint64_t seed = 0;
  bool shuffle = false;        // false: in index order, the same in every epoch
  bool drop_last = false;      // leaves out the partial batch at the end of an epoch
  int64_t block_samples = 16;  // neighbours that stay in one window
  int64_t window_blocks = 4096;
};

class Sampler {
 public:
  // InvalidArgument if a size is not positive (num_samples may be 0), or virtual_replicas does not divide the batch.
  static absl::StatusOr<std::unique_ptr<Sampler>> Create(const SamplerOptions& options);

  const SamplerOptions& options() const { return options_; }
  int64_t StepsPerEpoch() const;
  // Samples of the largest batch of one virtual replica.
  int64_t LargestBatch() const { return options_.batch / options_.virtual_replicas; }
  // In order; empty where the last batch has none left for it. `epoch` and `step` count from 0. REQUIRES: step <
  // StepsPerEpoch(), virtual_replica < options().virtual_replicas.
  std::vector<int64_t> Samples(uint64_t epoch, int64_t step, int virtual_replica) const;
  // The sample at a place of the epoch's order. REQUIRES: 0 <= place < num_samples.
  int64_t SampleAt(uint64_t epoch, int64_t place) const;

 private:
  explicit Sampler(const SamplerOptions& options);

  const SamplerOptions options_;
  const int64_t blocks_;          // whole ones
  const int64_t windows_;         // the last takes what is left: up to two windows less a block, and the samples beyond whole blocks
  const int64_t window_samples_;  // of every window but the last
};

}  // namespace lockstep::dataset
