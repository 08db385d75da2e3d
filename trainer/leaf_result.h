#pragma once
// What a virtual replica's pass over its samples left behind. Plain data; sums are over its good samples.

#include <cstdint>
#include <string>
#include <vector>

namespace lockstep {

struct BadSample {
  int64_t sample = 0;
  std::string reason;
};

struct SumAndCount {
  double sum = 0;
  double count = 0;
};

struct LeafResult {
  int leaf = 0;
  int64_t samples = 0;
  double loss_sum = 0;
  std::vector<SumAndCount> metrics;
  uint64_t sample_digest = 0;
  std::vector<int64_t> sample_ids;  // those read, in batch order, the bad ones included
  std::vector<BadSample> bad;
  bool out_of_memory = false;
  std::string error;  // empty: none
  double wait_seconds = 0;
  double forward_seconds = 0;
  double backward_seconds = 0;
};

}  // namespace lockstep
