#include "allreduce/ordered_allreduce.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>

#include "absl/strings/str_cat.h"
#include "allreduce/leaf_sums.h"
#include "allreduce/testing_gradients.h"
#include "allreduce/testing_ranks.h"

namespace lockstep::allreduce {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

template <typename T>
void ExpectSameBits(std::span<const T> a, std::span<const T> b) {
  ASSERT_EQ(a.size(), b.size());
  EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size_bytes()), 0);
}

// One rank's whole step: its leaves through LeafSums, one compute thread.
template <typename T>
void Step(OrderedAllReduce& all_reduce, LeafSums<T>& sums, LeafRange run, const Layout& layout,
          const std::vector<std::vector<T>>& gradients) {
  ASSERT_TRUE(sums.BeginStep().ok());
  for (int leaf = run.begin; leaf < run.end; ++leaf) {
    for (size_t segment = 0; segment < layout.segments.size(); ++segment) {
      const T* values = gradients[static_cast<size_t>(leaf)].data() + layout.segments[segment].offset;
      ASSERT_TRUE(sums.Add(leaf, static_cast<int>(segment), values).ok());
    }
  }
  const auto verdicts = all_reduce.Finish(absl::StrCat("run ", run.begin));
  ASSERT_TRUE(verdicts.ok()) << verdicts.status();
  const std::vector<T> expected = SumAlongTree(gradients, {0, static_cast<int>(gradients.size())});
  ExpectSameBits<T>(all_reduce.result<T>(), expected);
  // The result is ours to change.
  for (const Segment& segment : layout.segments) {
    std::fill_n(all_reduce.result<T>().begin() + static_cast<ptrdiff_t>(segment.offset), segment.count, T{7});
  }
}

template <typename T>
void SumsLikeTheTree(uint64_t seed, int ranks, const std::function<std::string(int rank)>& host_of) {
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", " << ranks << " ranks, " << sizeof(T) << " bytes");
  std::mt19937_64 random(seed);
  const int leaves = std::uniform_int_distribution<int>(ranks, 20)(random);
  const std::vector<LeafRange> runs = RandomRuns({0, leaves}, ranks, random);
  const Layout layout = RandomLayout(ElementOf<T>(), random);
  std::vector<std::vector<std::vector<T>>> steps;
  for (int step = 0; step < 3; ++step) steps.push_back(RandomGradients<T>(layout, leaves, random));
  RunRanks({.generation = seed, .runs = runs, .layout = layout, .host_of = host_of}, [&](OrderedAllReduce& all_reduce, int rank) {
    const LeafRange run = runs[static_cast<size_t>(rank)];
    LeafSums<T> sums(leaves, {run}, layout, all_reduce.subtree_sums<T>(), [&](int bucket) { EXPECT_TRUE(all_reduce.Submit(bucket).ok()); });
    for (const auto& gradients : steps) {
      Step<T>(all_reduce, sums, run, layout, gradients);
      const auto verdicts = all_reduce.ExchangeVerdicts(absl::StrCat(rank));
      ASSERT_TRUE(verdicts.ok()) << verdicts.status();
      for (int other = 0; other < ranks; ++other) EXPECT_EQ((*verdicts)[static_cast<size_t>(other)], absl::StrCat(other));
    }
  });
}

void SumsLikeTheTreeForAllRanks(uint64_t first_seed, const std::function<std::string(int rank)>& host_of) {
  for (int ranks = 1; ranks <= 5; ++ranks) {
    for (uint64_t seed = first_seed; seed < first_seed + 6; ++seed) {
      SumsLikeTheTree<float>(seed, ranks, host_of);
      SumsLikeTheTree<double>(seed, ranks, host_of);
    }
  }
}

TEST(OrderedAllReduce, SaysWhatItsMemoryIsFor) {
  const size_t elements = 1 << 20;
  const Layout layout = MakeLayout(std::vector<size_t>{elements}, Element::kFloat32, 1 << 20);
  const auto use_of = [&](const std::function<std::string(int rank)>& host_of) {
    std::vector<MemoryUse> before(2), after(2);
    const std::vector<LeafRange> runs = {{0, 1}, {1, 2}};
    RunRanks({.runs = runs, .layout = layout, .host_of = host_of}, [&](OrderedAllReduce& all_reduce, int rank) {
      const auto index = static_cast<size_t>(rank);
      before[index] = all_reduce.memory_use();
      LeafSums<float> sums(2, {runs[index]}, layout, all_reduce.subtree_sums<float>(),
                           [&](int bucket) { EXPECT_TRUE(all_reduce.Submit(bucket).ok()); });
      ASSERT_TRUE(sums.BeginStep().ok());
      ASSERT_TRUE(sums.CompleteWithZeros(rank).ok());
      ASSERT_TRUE(all_reduce.Finish("").ok());
      after[index] = all_reduce.memory_use();
    });
    EXPECT_EQ(after[0].sums, layout.bytes());
    EXPECT_EQ(after[1].sums, layout.bytes());
    return std::pair(before[0], after[0]);
  };
  const auto [before, after] = use_of([](int) { return std::string("a"); });
  EXPECT_LE(before.peers, layout.bytes() / 8) << "control blocks, and what the kernel maps in around them";
  // A rank reads and writes its half of the peer's vector; the kernel may map in what is around it.
  EXPECT_GE(after.peers, layout.bytes() / 2);
  EXPECT_LE(after.peers, layout.bytes() + (256u << 10));
  EXPECT_EQ(after.buffers, 0u);
  const auto [apart_before, apart] = use_of([](int rank) { return std::string(rank == 0 ? "a" : "b"); });
  EXPECT_LE(apart.peers, layout.bytes() / 8) << "no memory is shared";
  EXPECT_EQ(apart.buffers, PredictMemory({1, 2, {{0, 1}, {1, 2}}, 0}, layout, {false, true}).receive);
}

TEST(OrderedAllReduce, SameBitsAsTheTreeOnOneHost) {
  SumsLikeTheTreeForAllRanks(100, [](int) { return std::string("a"); });
}
TEST(OrderedAllReduce, SameBitsAsTheTreeOnAHostEach) {
  SumsLikeTheTreeForAllRanks(200, [](int rank) { return absl::StrCat(rank); });
}
TEST(OrderedAllReduce, SameBitsAsTheTreeOnTwoHosts) {
  SumsLikeTheTreeForAllRanks(300, [](int rank) { return std::string(rank % 2 == 0 ? "a" : "b"); });
}

// Few large buckets, and many small ones, of which some ranks are ahead.
class Traffic : public testing::TestWithParam<size_t> {};
INSTANTIATE_TEST_SUITE_P(BucketBytes, Traffic, testing::Values(4 << 20, 64 << 10));

TEST_P(Traffic, MoreThanSocketsHold) {
  const size_t counts[] = {1 << 20, 1 << 18};
  const Layout layout = MakeLayout(counts, Element::kFloat32, GetParam());
  std::mt19937_64 random(1);
  const auto gradients = RandomGradients<float>(layout, 4, random);
  const std::vector<LeafRange> runs = {{0, 1}, {1, 2}, {2, 3}, {3, 4}};
  const auto host_of = [](int rank) { return absl::StrCat(rank / 2 == 0 ? 0 : rank); };
  RunRanks({.runs = runs, .layout = layout, .host_of = host_of}, [&](OrderedAllReduce& all_reduce, int rank) {
    const LeafRange run = runs[static_cast<size_t>(rank)];
    LeafSums<float> sums(4, {run}, layout, all_reduce.subtree_sums<float>(),
                         [&](int bucket) { EXPECT_TRUE(all_reduce.Submit(bucket).ok()); });
    for (int step = 0; step < 2; ++step) Step<float>(all_reduce, sums, run, layout, gradients);
  });
}

TEST(OrderedAllReduce, EveryRankGetsAllVerdictsUpToTheLongest) {
  for (const bool local : {true, false}) {
    const auto host_of = [local](int rank) { return local ? std::string("a") : absl::StrCat(rank); };
    RunRanks({.runs = {{0, 1}, {1, 2}}, .layout = MakeLayout({}, Element::kFloat32, 1), .host_of = host_of},
             [&](OrderedAllReduce& all_reduce, int rank) {
               const std::string longest(kMaxVerdictBytes, 'x');
               ASSERT_TRUE(all_reduce.Submit(0).ok());
               EXPECT_TRUE(absl::IsInvalidArgument(all_reduce.Finish(longest + "x").status()));
               const auto verdicts = all_reduce.Finish(rank == 0 ? "" : longest);
               ASSERT_TRUE(verdicts.ok()) << verdicts.status();
               EXPECT_THAT(*verdicts, ElementsAre("", longest));
             });
  }
}

// As docs/allreduce.md has it, for every rank r and bucket: to each peer p its chunk of every subtree of r's, and r's reduced
// chunk.
TEST(OrderedAllReduce, BytesOnTheWireAreThoseOfTheFormula) {
  const size_t counts[] = {5000};
  const Layout layout = MakeLayout(counts, Element::kFloat32, 4096);
  for (const std::vector<LeafRange>& runs : {std::vector<LeafRange>{{0, 4}, {4, 8}}, {{0, 3}, {3, 6}, {6, 8}}}) {
    const Membership membership{1, 8, runs, 0};
    const int ranks = membership.ranks();
    const auto host_of = [](int rank) { return absl::StrCat(rank); };
    std::atomic<uint64_t> sums_bytes{0};
    RunRanks({.runs = runs, .layout = layout, .host_of = host_of}, [&](OrderedAllReduce& all_reduce, int rank) {
      uint64_t expected = 0, received = 0, first_half = 0;
      for (const Segment& bucket : layout.buckets) {
        for (int peer = 0; peer < ranks; ++peer) {
          if (peer == rank) continue;
          const auto bytes = [&](int of) { return 4 * ChunkOf(layout, bucket, ranks, of).count; };
          first_half += membership.SubtreesOf(rank).size() * bytes(peer);
          expected += membership.SubtreesOf(rank).size() * bytes(peer) + bytes(rank) + 2 * sizeof(FrameHeader);
          received += membership.SubtreesOf(peer).size() * bytes(rank) + bytes(peer) + 2 * sizeof(FrameHeader);
        }
      }
      const uint64_t verdicts = static_cast<uint64_t>(ranks - 1) * (sizeof(FrameHeader) + 5);
      for (size_t bucket = 0; bucket < layout.buckets.size(); ++bucket) ASSERT_TRUE(all_reduce.Submit(static_cast<int>(bucket)).ok());
      ASSERT_TRUE(all_reduce.Finish("12345").ok());
      EXPECT_EQ(all_reduce.metrics().bytes_sent, expected + verdicts);
      EXPECT_EQ(all_reduce.metrics().bytes_received, received + verdicts);
      EXPECT_EQ(all_reduce.metrics().bytes_shared, 0u);
      sums_bytes += first_half;
    });
    // Aligned: a ring's. 3 ranks of 8 leaves: 5 subtrees travel instead of 3.
    const auto subtrees = ranks == 2 ? 2 : 5;
    EXPECT_NEAR(static_cast<double>(sums_bytes), static_cast<double>(layout.bytes()) * subtrees * (ranks - 1) / ranks,
                static_cast<double>(layout.buckets.size() * 64 * 10));
  }
}

TEST(OrderedAllReduce, SharedBytesAreCountedWhereMemoryIsShared) {
  const size_t counts[] = {1024};
  const Layout layout = MakeLayout(counts, Element::kFloat32, 1 << 20);
  RunRanks({.runs = {{0, 1}, {1, 2}}, .layout = layout}, [&](OrderedAllReduce& all_reduce, int) {
    ASSERT_TRUE(all_reduce.Submit(0).ok());
    ASSERT_TRUE(all_reduce.Finish("").ok());
    EXPECT_EQ(all_reduce.metrics().bytes_shared, 2u * 2048);  // half of the peer's sums read, half of its result written
    EXPECT_EQ(all_reduce.metrics().bytes_sent, 0u);
  });
}

TEST(OrderedAllReduce, PredictedMemoryCountsVectorsAndReceiveBuffers) {
  const size_t counts[] = {1 << 20};
  const Layout layout = MakeLayout(counts, Element::kFloat32, 1 << 20);
  const Membership membership{1, 8, {{0, 3}, {3, 6}, {6, 8}}, 0};
  const MemoryNeed alone = PredictMemory(membership, layout, {false, false, false});
  EXPECT_EQ(alone.receive, 0u);
  EXPECT_GE(alone.shared, 2 * layout.bytes());
  EXPECT_LE(alone.shared, 2 * layout.bytes() + kMaxVerdictBytes + 2 * kPageBytes);
  const size_t chunk = LargestChunk(layout, 3) * 4;
  EXPECT_EQ(PredictMemory(membership, layout, {false, true, false}).receive, 2 * 2 * chunk);
  EXPECT_EQ(PredictMemory(membership, layout, {false, true, true}).receive, 2 * (2 + 1) * chunk);
}

TEST(OrderedAllReduce, MisuseIsRefusedAndAForgottenBucketBreaksTheCollectiveForAll) {
  const size_t counts[] = {64};
  const Layout layout = MakeLayout(counts, Element::kFloat32, 64);
  RunRanks({.runs = {{0, 1}, {1, 2}}, .layout = layout}, [&](OrderedAllReduce& all_reduce, int rank) {
    EXPECT_TRUE(absl::IsInvalidArgument(all_reduce.Submit(4)));
    EXPECT_TRUE(absl::IsInvalidArgument(all_reduce.Submit(-1)));
    for (int bucket = rank; bucket < 4; ++bucket) ASSERT_TRUE(all_reduce.Submit(bucket).ok());
    EXPECT_FALSE(all_reduce.Submit(3).ok());
    const absl::Status finished = all_reduce.Finish("").status();
    EXPECT_TRUE(rank == 0 ? absl::IsAborted(finished) : absl::IsFailedPrecondition(finished)) << finished;
    EXPECT_THAT(std::string(finished.message()), HasSubstr("3 of 4 buckets"));
    EXPECT_EQ(all_reduce.Submit(0), finished);
    EXPECT_EQ(all_reduce.ExchangeVerdicts("").status(), finished);
  });
}

TEST(OrderedAllReduce, ExchangesOfDifferentKindsBreakTheCollectiveForAll) {
  for (const bool local : {true, false}) {
    const auto host_of = [local](int rank) { return local ? std::string("a") : absl::StrCat(rank); };
    RunRanks({.runs = {{0, 1}, {1, 2}}, .layout = MakeLayout({}, Element::kFloat32, 1), .host_of = host_of},
             [&](OrderedAllReduce& all_reduce, int rank) {
               if (rank == 0) {
                 ASSERT_TRUE(all_reduce.Submit(0).ok());
                 const absl::Status finished = all_reduce.Finish("").status();
                 EXPECT_TRUE(absl::IsAborted(finished) || absl::IsInternal(finished)) << finished;
               } else {
                 const absl::Status finished = all_reduce.ExchangeVerdicts("").status();
                 EXPECT_TRUE(absl::IsAborted(finished) || absl::IsInternal(finished)) << finished;
               }
             });
  }
}

}  // namespace
}  // namespace lockstep::allreduce
