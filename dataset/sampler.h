#pragma once
// Which samples each virtual replica takes in each step: a pure function of (seed, epoch, step, virtual replica). No queue of
// shards to lose: a redo or a rescale simply asks again.
//
// An epoch's order is a permutation of all samples, computed sample by sample in constant memory: a keyed Feistel network over the
// smallest even power of two that holds them, walked until it lands on a sample (Black and Rogaway, "Ciphers with arbitrary finite
// domains", 2002). Step s takes positions [s · batch, (s + 1) · batch); virtual replica v takes the v-th contiguous slice of
// them, the first slices one longer where the last, partial batch does not divide.
//
// Thread-safe: constant.

#include <array>
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
  bool shuffle = false;    // false: in index order, the same in every epoch
  bool drop_last = false;  // leaves out the partial batch at the end of an epoch
};

class Sampler {
 public:
  // InvalidArgument if the batch is not positive, or virtual_replicas does not divide it.
  static absl::StatusOr<std::unique_ptr<Sampler>> Create(const SamplerOptions& options);

  const SamplerOptions& options() const { return options_; }
  int64_t StepsPerEpoch() const;
  // Sizes of the largest batch of one virtual replica.
  int64_t LargestBatch() const { return options_.batch / options_.virtual_replicas; }
  // In order; empty where the last batch has none left for it. `epoch` and `step` count from 0. REQUIRES: step < StepsPerEpoch().
  std::vector<int64_t> Samples(uint64_t epoch, int64_t step, int virtual_replica) const;
  // The sample at a position of the epoch's order.
  int64_t SampleAt(uint64_t epoch, int64_t position) const;

 private:
  explicit Sampler(const SamplerOptions& options);

  const SamplerOptions options_;
  int half_bits_ = 1;
};

}  // namespace lockstep::dataset
