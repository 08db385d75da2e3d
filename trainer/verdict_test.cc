#include "trainer/verdict.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "allreduce/ordered_allreduce.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

LeafResult Leaf(int leaf, double loss = 1, int64_t samples = 4) {
  LeafResult result;
  result.leaf = leaf;
  result.samples = samples;
  result.loss_sum = loss;
  result.metrics = {{loss / 2, static_cast<double>(samples)}};
  result.sample_digest = 100 + static_cast<uint64_t>(leaf);
  result.sample_ids = {leaf * 10, leaf * 10 + 1};
  return result;
}

std::string Encode(std::vector<LeafResult> leaves, const std::string& hash = "") {
  Verdict verdict;
  verdict.leaves = std::move(leaves);
  verdict.state_hash = hash;
  return EncodeVerdict(verdict);
}

TEST(Verdict, SumsDoNotDependOnWhoHeldWhichVirtualReplica) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::vector<LeafResult> leaves;
  for (int i = 0; i < 8; ++i) leaves.push_back(Leaf(i, std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 60) - 30)));
  const JointVerdict alone = *JoinVerdicts({Encode(leaves)}, 8);
  for (size_t split = 1; split < 8; ++split) {
    const auto middle = leaves.begin() + static_cast<std::ptrdiff_t>(split);
    const auto joint = JoinVerdicts({Encode({leaves.begin(), middle}), Encode({middle, leaves.end()})}, 8);
    ASSERT_TRUE(joint.ok()) << joint.status();
    EXPECT_EQ(joint->loss_sum, alone.loss_sum) << "bits, not about";
    EXPECT_EQ(joint->metrics[0].sum, alone.metrics[0].sum);
    EXPECT_EQ(joint->sample_digest, alone.sample_digest);
    ASSERT_EQ(joint->leaves.size(), 8u);
    for (size_t leaf = 0; leaf < 8; ++leaf) EXPECT_EQ(joint->leaves[leaf].samples, alone.leaves[leaf].samples);
    EXPECT_EQ(joint->samples, 32);
  }
}

TEST(Verdict, AVirtualReplicaMissingOrTwiceIsDataLoss) {
  EXPECT_EQ(JoinVerdicts({Encode({Leaf(0)}), Encode({Leaf(0)})}, 2).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(JoinVerdicts({Encode({Leaf(0)})}, 2).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(JoinVerdicts({Encode({Leaf(0), Leaf(2)})}, 2).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(JoinVerdicts({"\xff\xff nonsense"}, 1).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Verdict, OneReplicasTroubleIsEverybodys) {
  LeafResult sick = Leaf(1);
  sick.out_of_memory = true;
  sick.error = "out of memory: 12 bytes";
  const auto joint = JoinVerdicts({Encode({Leaf(0)}), Encode({sick})}, 2);
  ASSERT_TRUE(joint.ok());
  EXPECT_TRUE(joint->out_of_memory);
  EXPECT_EQ(joint->error, "rank 1: out of memory: 12 bytes");
}

TEST(Verdict, MemoryThatRanOutComesBeforeOtherTroubleAndNeedsNoLeafThatKnows) {
  LeafResult sick = Leaf(0);
  sick.error = "no such file";
  Verdict swallowed;
  swallowed.leaves = {Leaf(1)};
  swallowed.out_of_memory = true;
  swallowed.error = "forward conv1 asked for 12 bytes";
  LeafResult also = Leaf(2);
  also.out_of_memory = true;
  also.error = "out of memory: 13 bytes";
  const auto joint = JoinVerdicts({Encode({sick}), EncodeVerdict(swallowed), Encode({also})}, 3);
  ASSERT_TRUE(joint.ok());
  EXPECT_TRUE(joint->out_of_memory);
  EXPECT_THAT(joint->ranks_out_of_memory, ElementsAre(1, 2));
  EXPECT_EQ(joint->error, "rank 1: forward conv1 asked for 12 bytes");
  EXPECT_FALSE(JoinVerdicts({Encode({sick}), Encode({Leaf(1)})}, 2)->out_of_memory);
}

TEST(Verdict, ReplicasWhoseStateDiffersAreNamed) {
  const auto joint = JoinVerdicts({Encode({Leaf(0)}, "aa"), Encode({Leaf(1)}, "bb"), Encode({Leaf(2)}, "aa")}, 3);
  ASSERT_TRUE(joint.ok());
  EXPECT_THAT(joint->divergence, HasSubstr("rank 0, 2 has aa"));
  EXPECT_THAT(joint->divergence, HasSubstr("rank 1 has bb"));
  EXPECT_EQ(joint->divergent, std::vector<int>{1}) << "the others are most";
  const auto equal = JoinVerdicts({Encode({Leaf(0)}, "aa"), Encode({Leaf(1)}, "aa"), Encode({Leaf(2)})}, 3);
  EXPECT_TRUE(equal->divergent.empty()) << "one that computed no hash says nothing";
  const auto tie = JoinVerdicts({Encode({Leaf(0)}, "aa"), Encode({Leaf(1)}, "bb")}, 2);
  EXPECT_EQ(tie->divergent, (std::vector<int>{0, 1})) << "nobody knows which is right";
}

TEST(Verdict, BadSamplesComeInOrderOfVirtualReplicas) {
  LeafResult first = Leaf(0), second = Leaf(1);
  first.bad = {{3, "truncated"}};
  second.bad = {{9, "zero bytes"}};
  const auto joint = JoinVerdicts({Encode({second}), Encode({first})}, 2);
  ASSERT_TRUE(joint.ok());
  ASSERT_EQ(joint->bad.size(), 2u);
  EXPECT_EQ(joint->bad[0].sample, 3);
  EXPECT_EQ(joint->bad[1].reason, "zero bytes");
}

TEST(Verdict, IsCutToWhatFits) {
  for (const int64_t last : {int64_t{100}, int64_t{100'000}, int64_t{1} << 40}) {
    const int64_t each = MostSamplesInVerdict(last, 64) / 64;
    ASSERT_GT(each, 20);
    std::vector<LeafResult> leaves;
    for (int i = 0; i < 64; ++i) {
      leaves.push_back(Leaf(i));
      leaves.back().sample_ids.assign(static_cast<size_t>(each), last - 1);
      leaves.back().bad.assign(static_cast<size_t>(each), {last - 1, std::string(5000, 'x')});
    }
    const std::string encoded = Encode(leaves);
    EXPECT_LE(encoded.size(), allreduce::kMaxVerdictBytes) << last;
    const auto joint = JoinVerdicts({encoded}, 64);
    ASSERT_TRUE(joint.ok()) << joint.status();
    EXPECT_EQ(joint->bad.size(), static_cast<size_t>(64 * each)) << "every bad sample is still counted";
    EXPECT_EQ(joint->leaves[63].samples.size(), static_cast<size_t>(each)) << "and every sample named";
    EXPECT_EQ(joint->samples, 64 * 4);
  }
}

}  // namespace
}  // namespace lockstep
