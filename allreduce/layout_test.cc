#include "allreduce/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "allreduce/membership.h"

namespace lockstep::allreduce {
namespace {

using testing::ElementsAre;

TEST(Layout, SegmentsBeginAtCacheLinesAndBucketsAreSlices) {
  const size_t counts[] = {20, 0, 16, 1};
  const Layout layout = MakeLayout(counts, Element::kFloat32, 128);
  EXPECT_THAT(layout.segments, ElementsAre(Segment{0, 20}, Segment{32, 0}, Segment{32, 16}, Segment{48, 1}));
  EXPECT_EQ(layout.elements, 64u);
  EXPECT_EQ(layout.bytes(), 256u);
  EXPECT_THAT(layout.buckets, ElementsAre(Segment{0, 32}, Segment{32, 32}));
}

TEST(Layout, NothingStillHasABucketForTheVerdict) {
  const Layout layout = MakeLayout({}, Element::kFloat64, 4 << 20);
  EXPECT_EQ(layout.elements, 0u);
  EXPECT_THAT(layout.buckets, ElementsAre(Segment{0, 0}));
}

TEST(Layout, ChunksMakeUpTheirBucketForAnyRanks) {
  const size_t counts[] = {1000, 77};
  for (const Element element : {Element::kFloat32, Element::kFloat64}) {
    const Layout layout = MakeLayout(counts, element, 1024);
    for (int ranks = 1; ranks <= 40; ++ranks) {
      for (const Segment& bucket : layout.buckets) {
        size_t next = bucket.offset;
        for (int rank = 0; rank < ranks; ++rank) {
          const Segment chunk = ChunkOf(layout, bucket, ranks, rank);
          EXPECT_EQ(chunk.offset, next);
          EXPECT_EQ(chunk.offset * SizeOf(element) % 64, 0u);
          EXPECT_LE(chunk.count, LargestChunk(layout, ranks));
          next += chunk.count;
        }
        EXPECT_EQ(next, bucket.offset + bucket.count);
      }
    }
  }
}

TEST(Membership, RunsMustFollowEachOtherAndHoldAllLeaves) {
  EXPECT_TRUE(Validate({1, 8, {{0, 3}, {3, 8}}, 1}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Validate({1, 8, {{0, 3}, {4, 8}}, 0})));
  EXPECT_TRUE(absl::IsInvalidArgument(Validate({1, 8, {{0, 8}, {8, 8}}, 0})));
  EXPECT_TRUE(absl::IsInvalidArgument(Validate({1, 8, {{0, 7}}, 0})));
  EXPECT_TRUE(absl::IsInvalidArgument(Validate({1, 8, {{0, 8}}, 1})));
  EXPECT_TRUE(absl::IsInvalidArgument(Validate({1, 0, {}, 0})));
}

TEST(Membership, TheFingerprintTellsRunsAndLayoutsApart) {
  const size_t counts[] = {20, 16}, others[] = {20, 15};
  const Layout layout = MakeLayout(counts, Element::kFloat32, 128);
  const uint64_t print = Fingerprint({1, 8, {{0, 4}, {4, 8}}, 0}, layout);
  EXPECT_EQ(print, Fingerprint({2, 8, {{0, 4}, {4, 8}}, 1}, layout));
  EXPECT_NE(print, Fingerprint({1, 8, {{0, 3}, {3, 8}}, 0}, layout));
  EXPECT_NE(print, Fingerprint({1, 8, {{0, 4}, {4, 8}}, 0}, MakeLayout(others, Element::kFloat32, 128)));
  EXPECT_NE(print, Fingerprint({1, 8, {{0, 4}, {4, 8}}, 0}, MakeLayout(counts, Element::kFloat64, 128)));
  EXPECT_NE(print, Fingerprint({1, 8, {{0, 4}, {4, 8}}, 0}, MakeLayout(counts, Element::kFloat32, 256)));
}

}  // namespace
}  // namespace lockstep::allreduce
