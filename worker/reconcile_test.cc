#include "worker/reconcile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);
const ReconcileOptions kOptions;

TrainerKey Key(const std::string& job, uint64_t generation = 1, uint32_t rank = 0, v1::Role role = v1::TRAIN) {
  return {job, generation, role, rank};
}
WantedTrainer Wanted(const TrainerKey& key, bool cancel = false) { return {key, {.cancel = cancel}}; }
ActualTrainer Running(const TrainerKey& key) { return {.key = key}; }
ActualTrainer Ended(const TrainerKey& key, bool acknowledged) { return {.key = key, .ended = true, .acknowledged = acknowledged}; }
ActualTrainer Unwanted(const TrainerKey& key, absl::Duration since) { return {.key = key, .unwanted_since = kNow - since}; }

Reconciliation Decide(const std::vector<WantedTrainer>& wanted, const std::vector<ActualTrainer>& actual) {
  return Reconcile(wanted, actual, kNow, kOptions);
}

TEST(Reconcile, StartsWhatIsWantedAndNotThere) {
  const auto todo = Decide({Wanted(Key("a")), Wanted(Key("a", 1, 1)), Wanted(Key("b"))}, {Running(Key("b"))});
  EXPECT_THAT(todo.start, ElementsAre(Key("a"), Key("a", 1, 1)));
  EXPECT_THAT(todo.kill, IsEmpty());
}

TEST(Reconcile, NeverStartsAgainWhatEndedWhileItIsWanted) {
  for (const bool acknowledged : {false, true}) {
    const auto todo = Decide({Wanted(Key("a"))}, {Ended(Key("a"), acknowledged)});
    EXPECT_THAT(todo.start, IsEmpty());
    EXPECT_THAT(todo.forget, IsEmpty());
  }
}

TEST(Reconcile, ForgetsWhatEndedOnceItIsAcknowledgedAndNotWanted) {
  EXPECT_THAT(Decide({}, {Ended(Key("a"), false)}).forget, IsEmpty());
  EXPECT_THAT(Decide({}, {Ended(Key("a"), true)}).forget, ElementsAre(Key("a")));
}

TEST(Reconcile, CancelsOnceAndStartsEvenWhatIsCancelledAlready) {
  EXPECT_THAT(Decide({Wanted(Key("a"), true)}, {}).start, ElementsAre(Key("a")));
  EXPECT_THAT(Decide({Wanted(Key("a"), true)}, {Running(Key("a"))}).tell, ElementsAre(Key("a")));
  ActualTrainer told = Running(Key("a"));
  told.told.cancel = true;
  EXPECT_THAT(Decide({Wanted(Key("a"), true)}, {told}).tell, IsEmpty());
  EXPECT_THAT(Decide({Wanted(Key("a"), true)}, {Ended(Key("a"), false)}).tell, IsEmpty());
}

TEST(Reconcile, WhatIsNotWantedMayEndThenIsTerminatedThenKilled) {
  const TrainerKey key = Key("a");
  const auto fresh = Decide({}, {Unwanted(key, absl::ZeroDuration())});
  EXPECT_THAT(fresh.terminate, IsEmpty());
  EXPECT_EQ(fresh.next, kNow + kOptions.patience);
  const auto impatient = Decide({}, {Unwanted(key, kOptions.patience)});
  EXPECT_THAT(impatient.terminate, ElementsAre(key));
  EXPECT_THAT(impatient.kill, IsEmpty());
  EXPECT_EQ(impatient.next, kNow - kOptions.patience + kOptions.grace);
  ActualTrainer told = Unwanted(key, kOptions.grace);
  told.terminated = true;
  EXPECT_THAT(Decide({}, {told}).terminate, IsEmpty());
  EXPECT_THAT(Decide({}, {told}).kill, ElementsAre(key));
  told.killed = true;
  EXPECT_THAT(Decide({}, {told}).kill, IsEmpty());
  EXPECT_EQ(Decide({}, {told}).next, absl::InfiniteFuture());
}

TEST(Reconcile, AnOldGenerationIsKilledAndReapedBeforeTheNewOneStarts) {
  const TrainerKey old = Key("a", 1);
  const TrainerKey fresh = Key("a", 2);
  const auto before = Decide({Wanted(fresh)}, {Unwanted(old, absl::ZeroDuration())});
  EXPECT_THAT(before.kill, ElementsAre(old));
  EXPECT_THAT(before.start, IsEmpty());
  EXPECT_THAT(Decide({Wanted(fresh)}, {Ended(old, false)}).start, ElementsAre(fresh));
}

TEST(Reconcile, AJoinerStartsBesideTheMembersThatRun) {
  const TrainerKey member = Key("a", 1);
  const TrainerKey joiner = Key("a", 2);
  const auto todo = Decide({Wanted(member), Wanted(joiner)}, {Running(member)});
  EXPECT_THAT(todo.start, ElementsAre(joiner));
  EXPECT_THAT(todo.kill, IsEmpty());
  EXPECT_THAT(Decide({Wanted(member), Wanted(joiner)}, {Running(joiner)}).start, ElementsAre(member));
}

TEST(Reconcile, TellsOfANewerGenerationOnce) {
  WantedTrainer moved = Wanted(Key("a"));
  moved.word.newest_generation = 2;
  ActualTrainer running = Running(Key("a"));
  running.told.newest_generation = 1;
  EXPECT_THAT(Decide({moved}, {running}).tell, ElementsAre(Key("a")));
  running.told.newest_generation = 2;
  EXPECT_THAT(Decide({moved}, {running}).tell, IsEmpty());
}

TEST(Reconcile, APlannerMayLeaveByItselfBeforeTheTrainingStarts) {
  const TrainerKey planner = Key("a", 0, 0, v1::PLAN);
  const auto before = Decide({Wanted(Key("a"))}, {Unwanted(planner, absl::ZeroDuration())});
  EXPECT_THAT(before.kill, IsEmpty());
  EXPECT_THAT(before.start, IsEmpty());
  EXPECT_EQ(before.next, kNow + kOptions.patience);
  EXPECT_THAT(Decide({Wanted(Key("a"))}, {Ended(planner, false)}).start, ElementsAre(Key("a")));
}

// Plays a worker against random orders, and looks for a second start, or two generations of a job side by side.
TEST(Reconcile, StartsOnceAndNeverTwoGenerationsAtATimeWhateverIsOrdered) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::map<TrainerKey, ActualTrainer> actual;
  std::map<TrainerKey, int> starts;
  absl::Time now = kNow;
  uint64_t generation = 1;
  for (int step = 0; step < 2000; ++step) {
    if (random() % 10 == 0) ++generation;
    std::vector<WantedTrainer> wanted;
    for (uint32_t rank = 0; rank < 2; ++rank) {
      if (random() % 3 != 0) wanted.push_back(Wanted(Key("a", generation, rank), random() % 5 == 0));
    }
    std::vector<ActualTrainer> list;
    for (auto& [key, one] : actual) {
      const bool is_wanted = std::any_of(wanted.begin(), wanted.end(), [&key = key](const auto& order) { return order.key == key; });
      if (is_wanted) one.unwanted_since.reset();
      if (!is_wanted && !one.unwanted_since.has_value()) one.unwanted_since = now;
      list.push_back(one);
    }
    const Reconciliation todo = Reconcile(wanted, list, now, kOptions);
    for (const TrainerKey& key : todo.start) {
      EXPECT_EQ(++starts[key], 1) << ToString(key);
      actual[key] = Running(key);
    }
    for (const TrainerKey& key : todo.terminate) actual.at(key).terminated = true;
    for (const TrainerKey& key : todo.kill) actual.at(key).killed = true;
    std::set<uint64_t> generations;
    for (auto& [key, one] : actual) {
      if (!one.ended) generations.insert(key.generation);
      if (random() % (one.killed ? 2 : 20) == 0) one.ended = true;
    }
    EXPECT_LE(generations.size(), 1U);
    now += absl::Milliseconds(random() % 2000);
  }
}

}  // namespace
}  // namespace lockstep
