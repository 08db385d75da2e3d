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

// What a key is for, so that no two permutations of an epoch share theirs.
enum class Use : uint64_t { kOffset = 1, kBlocks, kWindow };
uint64_t Key(uint64_t seed, uint64_t epoch, Use use, uint64_t number) {
  return Mix(Mix(Mix(Mix(seed) ^ epoch) ^ static_cast<uint64_t>(use)) ^ number);
}

// Where a permutation of 0 … size-1 that `key` names takes `place`.
int64_t Permute(uint64_t key, int64_t size, int64_t place) {
  int half_bits = 1;
  while ((int64_t{1} << (2 * half_bits)) < size) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  auto value = static_cast<uint64_t>(place);
  do {
    uint64_t left = value >> half_bits, right = value & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t next = left ^ (Mix(key + (static_cast<uint64_t>(round) << 56) + right) & mask);
      left = right;
      right = next;
    }
    value = (left << half_bits) | right;
  } while (value >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(value);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Sampler>> Sampler::Create(const SamplerOptions& options) {
  if (options.num_samples < 0) return absl::InvalidArgumentError(absl::StrCat("num_samples: ", options.num_samples, " is negative"));
  if (options.batch < 1) return absl::InvalidArgumentError(absl::StrCat("batch: must be at least 1, not ", options.batch));
  if (options.virtual_replicas < 1 || options.batch % options.virtual_replicas != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("virtual_replicas: ", options.virtual_replicas, " does not divide the batch of ", options.batch));
  }
  if (options.block_samples < 1 || options.window_blocks < 1) {
    return absl::InvalidArgumentError(absl::StrCat("blocks of ", options.block_samples, " samples in windows of ", options.window_blocks,
                                                   " blocks: both must be at least 1"));
  }
  return std::unique_ptr<Sampler>(new Sampler(options));
}

Sampler::Sampler(const SamplerOptions& options)
    : options_(options),
      blocks_(options.num_samples / options.block_samples),
      windows_(std::max<int64_t>(1, blocks_ / options.window_blocks)),
      window_samples_(options.window_blocks * options.block_samples) {}

int64_t Sampler::StepsPerEpoch() const {
  const int64_t whole = options_.num_samples / options_.batch;
  return whole + (!options_.drop_last && options_.num_samples % options_.batch != 0 ? 1 : 0);
}

int64_t Sampler::SampleAt(uint64_t epoch, int64_t place) const {
  if (!options_.shuffle) return place;
  const int64_t samples = options_.num_samples;
  const int64_t window = std::min(place / window_samples_, windows_ - 1);
  const int64_t begin = window * window_samples_;
  const int64_t size = window + 1 < windows_ ? window_samples_ : samples - begin;
  const uint64_t window_key = Key(options_.seed, epoch, Use::kWindow, static_cast<uint64_t>(window));
  const int64_t spread = begin + Permute(window_key, size, place - begin);
  const int64_t block = spread / options_.block_samples;
  // The samples beyond whole blocks stay at the end, in the last window; which they are, the offset decides.
  const int64_t moved = block < blocks_ ? Permute(Key(options_.seed, epoch, Use::kBlocks, 0), blocks_, block) : block;
  const int64_t turned = moved * options_.block_samples + spread % options_.block_samples;
  const auto offset = static_cast<int64_t>(Key(options_.seed, epoch, Use::kOffset, 0) % static_cast<uint64_t>(samples));
  return turned < samples - offset ? turned + offset : turned - (samples - offset);
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
