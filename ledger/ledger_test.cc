#include "ledger/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <fstream>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/test_folder.h"
#include "dataset/sampler.h"
#include "ledger/file_digest.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class LedgerTest : public testing::Test {
 protected:
  std::unique_ptr<dataset::Index> MakeIndex(int64_t samples) {
    const auto source = [&](const dataset::FileSink& sink) -> absl::Status {
      for (int64_t i = 0; i < samples; ++i) {
        if (absl::Status taken = sink({absl::StrCat("cat/", 1000 + i, ".jpg"), 0, 10}); !taken.ok()) return taken;
      }
      return absl::OkStatus();
    };
    const std::string path = folder_ / "train.index";
    EXPECT_TRUE(dataset::WriteIndex(source, {"cat"}, path, 64 << 20).ok());
    return *dataset::Index::Open(path);
  }

  // What a trainer would record, by the sampler that it uses.
  static std::vector<v1::StepRecord> Records(const dataset::Sampler& sampler, int virtual_replicas, uint32_t epochs) {
    std::vector<v1::StepRecord> steps;
    for (uint32_t epoch = 1; epoch <= epochs; ++epoch) {
      for (int64_t step = 0; step < sampler.StepsPerEpoch(); ++step) {
        v1::StepRecord& record = steps.emplace_back();
        record.set_step(steps.size());
        record.set_epoch(epoch);
        for (int leaf = 0; leaf < virtual_replicas; ++leaf) {
          v1::LeafUse& use = *record.add_leaves();
          for (const int64_t id : sampler.Samples(epoch - 1, step, leaf)) use.add_samples(static_cast<uint64_t>(id));
          use.set_digest(static_cast<uint64_t>(step * 100 + leaf));
        }
        Seal(record);
      }
    }
    return steps;
  }
  static void Seal(v1::StepRecord& record) {
    std::vector<uint64_t> digests;
    uint32_t samples = 0;
    for (const v1::LeafUse& use : record.leaves()) {
      digests.push_back(use.digest());
      samples += static_cast<uint32_t>(use.samples_size() - use.bad_size());
    }
    record.set_samples(samples);
    record.set_sample_digest(XXH3_64bits(digests.data(), digests.size() * sizeof(uint64_t)));
  }

  std::vector<std::string> Check(const std::vector<v1::StepRecord>& steps, LedgerTerms terms,
                                 const std::vector<std::string>& bad_samples = {}) {
    Ledger ledger(*index_, terms, nullptr);
    for (size_t i = 0; i < steps.size(); ++i) {
      ledger.Add(steps[i]);
      if (i + 1 < steps.size() && steps[i + 1].epoch() == steps[i].epoch()) continue;
      v1::EpochRecord epoch;
      epoch.set_epoch(steps[i].epoch());
      epoch.mutable_bad_samples()->Assign(bad_samples.begin(), bad_samples.end());
      ledger.Add(epoch);
    }
    ledger.Finish();
    accounts_ = ledger.epochs();
    return ledger.violations();
  }

  const TestFolder folder_;
  std::unique_ptr<dataset::Index> index_;
  std::vector<EpochAccount> accounts_;
};

TEST_F(LedgerTest, WhatTheSamplerFeedsIsExactlyOnceAndAnyTamperingIsFound) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 60; ++round) {
    const int leaves = 1 + static_cast<int>(random() % 5);
    const auto batch = static_cast<int64_t>(leaves * (1 + random() % 4));
    const auto samples = batch + static_cast<int64_t>(random() % 60);
    const bool drop = random() % 2 == 0;
    index_ = MakeIndex(samples);
    dataset::SamplerOptions options;
    options.num_samples = samples;
    options.batch = static_cast<int>(batch);
    options.virtual_replicas = leaves;
    options.seed = random();
    options.drop_last = drop;
    const auto sampler = dataset::Sampler::Create(options);
    ASSERT_TRUE(sampler.ok());
    const LedgerTerms terms{static_cast<uint64_t>(batch), drop, static_cast<uint32_t>(leaves), 2};
    const std::vector<v1::StepRecord> steps = Records(**sampler, leaves, 2);
    ASSERT_THAT(Check(steps, terms), IsEmpty()) << samples << " samples, batch " << batch << ", " << leaves << " leaves, drop " << drop;
    ASSERT_EQ(accounts_.size(), 2u);
    EXPECT_EQ(accounts_[0].used + accounts_[0].dropped, static_cast<uint64_t>(samples));

    // A batch that was fed before comes again in place of its own.
    std::vector<v1::StepRecord> again = steps;
    const size_t victim = 1 + random() % (steps.size() - 1);
    const auto epoch = again[victim].epoch();
    *again[victim].mutable_leaves() = again[victim - 1].leaves();
    Seal(again[victim]);
    if (again[victim - 1].epoch() == epoch) {
      EXPECT_THAT(Check(again, terms), testing::Not(IsEmpty()));
    }
    // One sample is another.
    std::vector<v1::StepRecord> other = steps;
    v1::LeafUse* use = other[random() % other.size()].mutable_leaves(0);
    if (use->samples_size() > 0 && samples > 1) {
      use->set_samples(0, (use->samples(0) + 1) % static_cast<uint64_t>(samples));
      const bool may_pass = drop && samples % batch > 0;  // it may be one of those that are dropped
      if (!may_pass) {
        EXPECT_THAT(Check(other, terms), testing::Not(IsEmpty()));
      }
    }
    // A step is missing, or comes twice.
    if (steps.size() > 2) {
      std::vector<v1::StepRecord> fewer = steps;
      fewer.erase(fewer.begin() + 1);
      EXPECT_THAT(Check(fewer, terms), testing::Not(IsEmpty()));
      std::vector<v1::StepRecord> more = steps;
      more.insert(more.begin() + 1, steps[1]);
      EXPECT_THAT(Check(more, terms), testing::Not(IsEmpty()));
    }
  }
}

v1::StepRecord Step(uint64_t number, std::vector<uint64_t> first, std::vector<uint64_t> second, std::vector<uint64_t> bad = {}) {
  v1::StepRecord step;
  step.set_step(number);
  step.set_epoch(1);
  v1::LeafUse& a = *step.add_leaves();
  a.mutable_samples()->Assign(first.begin(), first.end());
  a.mutable_bad()->Assign(bad.begin(), bad.end());
  step.add_leaves()->mutable_samples()->Assign(second.begin(), second.end());
  const uint64_t digests[] = {0, 0};
  step.set_sample_digest(XXH3_64bits(digests, sizeof(digests)));
  step.set_samples(static_cast<uint32_t>(first.size() + second.size() - bad.size()));
  return step;
}

TEST_F(LedgerTest, ViolationsNameSampleStepsAndVirtualReplicas) {
  index_ = MakeIndex(4);
  const LedgerTerms terms{2, false, 2, 1};
  EXPECT_THAT(
      Check({Step(1, {0}, {1}), Step(2, {1}, {3})}, terms),
      ElementsAre("cat/1001.jpg (sample 1) is used twice in epoch 1: in step 1 by virtual replica 1, and in step 2, virtual replica 0",
                  "cat/1002.jpg (sample 2) is not used in epoch 1, and nothing says why"));
  EXPECT_THAT(Check({Step(1, {0}, {1}), Step(2, {2}, {9})}, terms), testing::Contains(HasSubstr("there is no sample 9")));
  v1::StepRecord wrong = Step(1, {0}, {1});
  wrong.mutable_leaves(0)->set_digest(7);
  EXPECT_THAT(Check({wrong, Step(2, {2}, {3})}, terms), ElementsAre(HasSubstr("step 1: the digest of the step is not that")));
}

TEST_F(LedgerTest, BadSamplesAreAccountedForAndUnfinishedEpochsSaySo) {
  index_ = MakeIndex(6);
  LedgerTerms terms{2, false, 2, 1};
  // Step 3 had nothing but bad ones, and was not committed.
  EXPECT_THAT(Check({Step(1, {0, 2}, {1}, {2}), Step(2, {3}, {})}, terms, {"cat/1004.jpg: truncated", "cat/1005.jpg: no JPEG"}), IsEmpty());
  EXPECT_EQ(accounts_[0].bad, 3u);
  EXPECT_EQ(accounts_[0].used, 3u);
  EXPECT_THAT(Check({Step(1, {0}, {1}), Step(2, {2}, {})}, terms), testing::SizeIs(3));
  terms.whole_epochs = 0;
  EXPECT_THAT(Check({Step(1, {0}, {1}), Step(2, {2}, {})}, terms), IsEmpty());
  EXPECT_EQ(accounts_[0].unused, 3u);
  terms = {4, true, 2, 1};
  EXPECT_THAT(Check({Step(1, {0, 2}, {1, 5})}, terms), IsEmpty());
  EXPECT_EQ(accounts_[0].dropped, 2u);
  EXPECT_THAT(Check({Step(1, {0, 2}, {1})}, terms), testing::Each(HasSubstr("3 are not, and the last batch that may be dropped has 2")));
}

TEST_F(LedgerTest, AFileThatChangedIsFound) {
  index_ = MakeIndex(2);
  ASSERT_EQ(mkdir((folder_ / "cat").c_str(), 0700), 0);
  for (const char* name : {"cat/1000.jpg", "cat/1001.jpg"}) std::ofstream(folder_ / name) << name;
  v1::LeafUse use;
  const std::vector<int64_t> ids = {1, 0};
  use.mutable_samples()->Assign(ids.begin(), ids.end());
  const uint64_t hashes[] = {XXH3_64bits("cat/1001.jpg", 12), XXH3_64bits("cat/1000.jpg", 12)};
  use.set_digest(XXH3_64bits_withSeed(hashes, sizeof(hashes), XXH3_64bits(ids.data(), 16)));
  EXPECT_EQ(CheckFiles(*index_, folder_.path(), use), "");
  std::ofstream(folder_ / "cat/1000.jpg") << "another";
  EXPECT_THAT(CheckFiles(*index_, folder_.path(), use), HasSubstr("not what the files hold now: cat/1001.jpg cat/1000.jpg"));
  std::filesystem::remove(folder_ / "cat/1000.jpg");
  EXPECT_THAT(CheckFiles(*index_, folder_.path(), use), HasSubstr("cat/1000.jpg"));
}

}  // namespace
}  // namespace lockstep
