#include "trainer/remedy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep {
namespace {

using testing::ElementsAre;

// One after another, without a step that is committed in between, until none is left.
std::vector<Remedy> Course(Remedies now, const RemedyLimits& limits) {
  std::vector<Remedy> course;
  for (int i = 0; i < 100; ++i) {
    const RemedyChoice choice = NextRemedy(now, limits);
    if (choice.remedy == Remedy::kNone) return course;
    course.push_back(choice.remedy);
    now = choice.after;
  }
  ADD_FAILURE() << "without an end";
  return course;
}

TEST(Remedy, TheyComeInTheirOrderAndEnd) {
  using enum Remedy;
  EXPECT_THAT(Course({.threads = 4}, {.most_leaves = 8, .recomputations = 2}),
              ElementsAre(kGiveBack, kFewerThreads, kFewerThreads, kRecompute, kRecompute, kAgain, kAgain, kAgain));
  EXPECT_THAT(Course({.threads = 8}, {.most_leaves = 2}), ElementsAre(kGiveBack, kFewerThreads, kAgain, kAgain, kAgain))
      << "eight threads for two leaves are two";
  EXPECT_THAT(Course({.threads = 4}, {.most_leaves = 8, .recomputations = 2, .allowed = false}),
              ElementsAre(kGiveBack, kAgain, kAgain, kAgain));
}

TEST(Remedy, GivingBackIsTriedFirstAgainOnceItHasHeldForLong) {
  const Remedies now{.threads = 2, .gave_back = 11};
  const auto at = [&now](uint64_t step) { return NextRemedy(now, {.most_leaves = 2, .step = step}).remedy; };
  EXPECT_EQ(at(10), Remedy::kFewerThreads) << "of the same step";
  EXPECT_EQ(at(10 + kGivenBackHolds), Remedy::kFewerThreads);
  EXPECT_EQ(at(11 + kGivenBackHolds), Remedy::kGiveBack);
}

TEST(Remedy, AJoinerGoesOnFromWhereTheOthersAre) {
  const Remedies furthest =
      Furthest({{.threads = 4}, {.threads = 1, .recomputations = 1, .gave_back = 5}, {.threads = 2, .again = 2, .gave_back = 9}});
  EXPECT_EQ(furthest, (Remedies{.threads = 1, .recomputations = 1, .again = 2, .gave_back = 9}));
}

TEST(Remedy, TheBatchThatWouldDoHasAsManyBytesLess) {
  RunSpec spec;
  spec.micro_batch = 10, spec.virtual_replicas = 4, spec.step_bytes_per_sample = 100;
  EXPECT_EQ(BatchThatWouldDo(spec, 1), 36);
  EXPECT_EQ(BatchThatWouldDo(spec, 100), 36);
  EXPECT_EQ(BatchThatWouldDo(spec, 101), 32);
  EXPECT_EQ(BatchThatWouldDo(spec, 900), 4);
  EXPECT_EQ(BatchThatWouldDo(spec, 901), 0) << "there is none";
  spec.step_bytes_per_sample = 0;
  EXPECT_EQ(BatchThatWouldDo(spec, 1), 0) << "it is not known";
}

}  // namespace
}  // namespace lockstep
