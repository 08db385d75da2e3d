#include "dataset/sampler.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Sampler> Make(const SamplerOptions& options) {
  auto sampler = Sampler::Create(options);
  EXPECT_TRUE(sampler.ok()) << sampler.status();
  return std::move(sampler).value();
}

std::vector<int64_t> Epoch(const Sampler& sampler, uint64_t epoch) {
  std::vector<int64_t> order;
  for (int64_t step = 0; step < sampler.StepsPerEpoch(); ++step) {
    for (int v = 0; v < sampler.options().virtual_replicas; ++v) {
      const std::vector<int64_t> samples = sampler.Samples(epoch, step, v);
      EXPECT_LE(static_cast<int64_t>(samples.size()), sampler.LargestBatch());
      order.insert(order.end(), samples.begin(), samples.end());
    }
  }
  return order;
}

std::vector<int64_t> Sorted(std::vector<int64_t> values) {
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<int64_t> UpTo(int64_t count) {
  std::vector<int64_t> values(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) values[static_cast<size_t>(i)] = i;
  return values;
}

TEST(Sampler, EverySampleOnceInAnEpochForAnyV) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    SamplerOptions options;
    options.num_samples = static_cast<int64_t>(random() % 700);
    options.virtual_replicas = static_cast<int>(1 + random() % 9);
    options.batch = options.virtual_replicas * static_cast<int64_t>(1 + random() % 9);
    options.seed = random();
    options.shuffle = random() % 4 != 0;
    options.block_samples = static_cast<int64_t>(1 + random() % 8);
    options.window_blocks = static_cast<int64_t>(1 + random() % 8);
    SCOPED_TRACE(testing::Message() << options.num_samples << " samples, batch " << options.batch << ", V " << options.virtual_replicas
                                    << ", blocks of " << options.block_samples << ", windows of " << options.window_blocks);
    const auto sampler = Make(options);
    EXPECT_EQ(Sorted(Epoch(*sampler, random() % 1000)), UpTo(options.num_samples));
  }
}

// The order of an epoch is cut into virtual replicas, never reshuffled by their number.
TEST(Sampler, TheOrderDoesNotDependOnV) {
  SamplerOptions options{.num_samples = 1003, .batch = 24, .seed = 5, .shuffle = true};
  const std::vector<int64_t> order = Epoch(*Make(options), 3);
  for (const int v : {2, 3, 8, 24}) {
    options.virtual_replicas = v;
    EXPECT_EQ(Epoch(*Make(options), 3), order) << "V " << v;
  }
}

TEST(Sampler, APartialBatchIsSpreadAndSomeMayGetNone) {
  const auto sampler = Make({.num_samples = 16 + 3, .batch = 16, .virtual_replicas = 4});
  EXPECT_EQ(sampler->StepsPerEpoch(), 2);
  EXPECT_EQ(sampler->Samples(0, 0, 3), (std::vector<int64_t>{12, 13, 14, 15}));
  EXPECT_EQ(sampler->Samples(0, 1, 0), (std::vector<int64_t>{16}));
  EXPECT_EQ(sampler->Samples(0, 1, 2), (std::vector<int64_t>{18}));
  EXPECT_TRUE(sampler->Samples(0, 1, 3).empty());
}

TEST(Sampler, APartialBatchCanBeDroppedAndThenDiffersByEpoch) {
  const auto sampler = Make({.num_samples = 19, .batch = 16, .virtual_replicas = 4, .seed = 1, .shuffle = true, .drop_last = true});
  EXPECT_EQ(sampler->StepsPerEpoch(), 1);
  std::set<int64_t> used;
  for (uint64_t epoch = 0; epoch < 50; ++epoch) {
    const std::vector<int64_t> order = Epoch(*sampler, epoch);
    EXPECT_EQ(order.size(), 16u);
    used.insert(order.begin(), order.end());
  }
  EXPECT_EQ(used.size(), 19u);
}

TEST(Sampler, SeedAndEpochChangeTheOrderAndNothingElseDoes) {
  SamplerOptions options{.num_samples = 500, .batch = 50, .virtual_replicas = 5, .seed = 7, .shuffle = true};
  const auto one = Make(options);
  EXPECT_EQ(Epoch(*one, 4), Epoch(*Make(options), 4));
  EXPECT_NE(Epoch(*one, 4), Epoch(*one, 5));
  options.seed = 8;
  EXPECT_NE(Epoch(*one, 4), Epoch(*Make(options), 4));
}

// A change of these numbers changes what every job trains on: it needs a new version of the sampler, not a new expectation.
TEST(Sampler, TheExampleInTheDocuments) {
  const auto small = Make({.num_samples = 10, .batch = 4, .virtual_replicas = 2, .seed = 7, .shuffle = true});
  EXPECT_EQ(Epoch(*small, 0), (std::vector<int64_t>{8, 1, 5, 4, 9, 3, 6, 7, 0, 2}));
  const auto blocks = Make({.num_samples = 26, .batch = 26, .seed = 7, .shuffle = true, .block_samples = 4, .window_blocks = 2});
  EXPECT_EQ(Epoch(*blocks, 0),
            (std::vector<int64_t>{18, 0, 3, 2, 19, 1, 16, 17, 25, 22, 4, 7, 23, 5, 6, 24, 20, 13, 9, 15, 12, 10, 14, 11, 8, 21}));
}

// Every sample comes at every place about equally often: χ² over seeds, for sizes where a weak network would show.
TEST(Sampler, PlacesAreUniform) {
  for (const int64_t size : {2, 3, 5, 10, 17, 64}) {
    const int rounds = 4000;
    std::vector<int> counts(static_cast<size_t>(size * size));
    for (uint64_t seed = 0; seed < rounds; ++seed) {
      const auto sampler = Make({.num_samples = size, .batch = 1, .seed = seed, .shuffle = true});
      for (int64_t place = 0; place < size; ++place) ++counts[static_cast<size_t>(place * size + sampler->SampleAt(0, place))];
    }
    const double expected = static_cast<double>(rounds) / static_cast<double>(size);
    double chi = 0;
    for (const int count : counts) chi += (count - expected) * (count - expected) / expected;
    const auto degrees = static_cast<double>((size - 1) * (size - 1));
    EXPECT_LT(chi, degrees + 5 * std::sqrt(2 * degrees) + 5) << size << " samples";
  }
}

// Neighbours in the order are not neighbours in the index any more: labels, which come sorted, are mixed within a batch.
TEST(Sampler, SortedClassesAreMixedWithinABatch) {
  const auto sampler = Make({.num_samples = 100'000, .batch = 100, .seed = 3, .shuffle = true});
  for (const int64_t step : {0, 400, 999}) {
    std::set<int64_t> classes;
    for (const int64_t sample : sampler->Samples(0, step, 0)) classes.insert(sample / 10'000);
    EXPECT_GE(classes.size(), 8u) << "step " << step;
  }
}

TEST(Sampler, AWindowReadsAFewBlocks) {
  const SamplerOptions options{.num_samples = 10'000, .batch = 10, .seed = 9, .shuffle = true, .block_samples = 10, .window_blocks = 20};
  const auto sampler = Make(options);
  for (int64_t window = 0; window < 10'000 / 200; ++window) {
    std::set<int64_t> samples;
    for (int64_t place = window * 200; place < (window + 1) * 200; ++place) samples.insert(sampler->SampleAt(2, place));
    int runs = 0;
    for (const int64_t sample : samples) runs += samples.contains(sample - 1) ? 0 : 1;
    EXPECT_LE(runs, 21) << "window " << window;  // the turned order begins within a block
  }
}

TEST(Sampler, ABillionSamplesTakeNoMemoryAndOneAccessNoTime) {
  const int64_t billion = 1'000'000'000;
  const auto sampler = Make({.num_samples = billion + 7, .batch = 1024, .virtual_replicas = 8, .seed = 2, .shuffle = true});
  std::set<int64_t> seen;
  for (const int64_t step : {int64_t{0}, sampler->StepsPerEpoch() / 2, sampler->StepsPerEpoch() - 1}) {
    for (int v = 0; v < 8; ++v) {
      for (const int64_t sample : sampler->Samples(1, step, v)) {
        ASSERT_GE(sample, 0);
        ASSERT_LT(sample, billion + 7);
        EXPECT_TRUE(seen.insert(sample).second) << sample << " comes twice";
      }
    }
  }
}

TEST(Sampler, OptionsThatMakeNoSenseAreRefused) {
  EXPECT_THAT(std::string(Sampler::Create({.num_samples = 5, .batch = 0}).status().message()), HasSubstr("batch: must be at least 1"));
  EXPECT_THAT(std::string(Sampler::Create({.num_samples = 5, .batch = 10, .virtual_replicas = 4}).status().message()),
              HasSubstr("virtual_replicas: 4 does not divide the batch of 10"));
  EXPECT_FALSE(Sampler::Create({.num_samples = 5, .batch = 10, .virtual_replicas = 0}).ok());
  EXPECT_FALSE(Sampler::Create({.num_samples = -1, .batch = 1}).ok());
  EXPECT_FALSE(Sampler::Create({.num_samples = 5, .batch = 1, .block_samples = 0}).ok());
  EXPECT_EQ(Make({.num_samples = 0, .batch = 4})->StepsPerEpoch(), 0);
  EXPECT_EQ(Make({.num_samples = 3, .batch = 4, .drop_last = true})->StepsPerEpoch(), 0);
}

}  // namespace
}  // namespace lockstep::dataset
