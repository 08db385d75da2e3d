#include "dataset/sampler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lockstep::dataset {
namespace {

constexpr int kRounds = 6;

// The finaliser of SplitMix64.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sampler>> Sampler::Create(const SamplerOptions& options) {
  if (options.batch < 1) return absl::InvalidArgumentError(absl::StrCat("batch: must be at least 1, not ", options.batch));
  if (options.virtual_replicas < 1 || options.batch % options.virtual_replicas != 0) {
    return absl::InvalidArgumentError(absl::StrCat("virtual_replicas: ", options.virtual_replicas, " does not divide the batch of ",
                                                   options.batch));
  }
  return std::unique_ptr<Sampler>(new Sampler(options));
}

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  while ((int64_t{1} << (2 * half_bits_)) < options_.num_samples) ++half_bits_;
}

int64_t Sampler::StepsPerEpoch() const {
  const int64_t whole = options_.num_samples / options_.batch;
  return whole + (!options_.drop_last && options_.num_samples % options_.batch != 0 ? 1 : 0);
}

int64_t Sampler::SampleAt(uint64_t epoch, int64_t position) const {
  if (!options_.shuffle) return position;
  const uint64_t key = Mix(Mix(options_.seed) ^ Mix(epoch + (uint64_t{1} << 40)));
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  auto value = static_cast<uint64_t>(position);
  do {
    uint64_t left = value >> half_bits_, right = value & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (Mix(key + (static_cast<uint64_t>(round) << 56) + right) & mask);
      left = right;
      right = next;
    }
    value = (left << half_bits_) | right;
  } while (value >= static_cast<uint64_t>(options_.num_samples));
  return static_cast<int64_t>(value);
}

std::vector<int64_t> Sampler::Samples(uint64_t epoch, int64_t step, int virtual_replica) const {
  const int64_t first = step * options_.batch;
  const int64_t count = std::min(options_.batch, options_.num_samples - first);
  const int64_t each = count / options_.virtual_replicas, longer = count % options_.virtual_replicas;
  const int64_t begin = first + virtual_replica * each + std::min<int64_t>(virtual_replica, longer);
  const int64_t mine = each + (virtual_replica < longer ? 1 : 0);
  std::vector<int64_t> samples;
  samples.reserve(static_cast<size_t>(mine));
  for (int64_t i = 0; i < mine; ++i) samples.push_back(SampleAt(epoch, begin + i));
  return samples;
}

}  // namespace lockstep::dataset
