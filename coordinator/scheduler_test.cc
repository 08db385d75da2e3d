#include "coordinator/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

Offer WorkerWith(const std::string& id, uint32_t slots, uint32_t cores = 4, uint64_t memory_bytes = 0) {
  Offer offer;
  offer.worker_id = id;
  offer.cores = cores;
  offer.slots = offer.free_slots = slots;
  offer.memory_bytes = memory_bytes;
  return offer;
}

Ask AskFor(uint32_t min, uint32_t max, uint32_t virtual_replicas) {
  Ask ask;
  ask.min = min;
  ask.max = max;
  ask.virtual_replicas = virtual_replicas;
  ask.most_threads = 4;
  return ask;
}

struct Case {
  Ask ask;
  std::vector<Offer> workers;
};

Case RandomCase(std::mt19937_64& random) {
  const auto upto = [&random](uint64_t most) { return static_cast<uint32_t>(random() % (most + 1)); };
  Case one;
  one.ask.virtual_replicas = 1 + upto(15);
  one.ask.min = 1 + upto(one.ask.virtual_replicas - 1);
  one.ask.max = one.ask.min + upto(one.ask.virtual_replicas - one.ask.min);
  one.ask.threads = upto(3);
  one.ask.most_threads = 1 + upto(7);
  one.ask.base_bytes = upto(2'000) * kMiB;
  one.ask.bytes_per_thread = upto(300) * kMiB;
  for (uint32_t i = 0, count = upto(5); i < count; ++i) {
    Offer offer = WorkerWith(absl::StrCat("w", i), upto(4), 1 + upto(15), upto(1) * upto(8'000) * kMiB);
    offer.free_slots = upto(offer.slots);
    if (offer.memory_bytes > 0) offer.booked["other"] = upto(4'000) * kMiB;
    one.workers.push_back(offer);
  }
  return one;
}

TEST(Scheduler, NeverOverSlotsOrMemoryAndEveryVirtualReplicaOnce) {
  constexpr uint64_t kSeed = 20'261'125;
  SCOPED_TRACE(absl::StrCat("seed ", kSeed));
  std::mt19937_64 random(kSeed);
  int placed = 0;
  for (int i = 0; i < 20'000; ++i) {
    const Case one = RandomCase(random);
    const Decision decision = Place(one.ask, one.workers);
    ASSERT_FALSE(decision.reason.empty());
    if (decision.members.empty()) continue;
    ++placed;
    const auto replicas = static_cast<uint32_t>(decision.members.size());
    ASSERT_GE(replicas, one.ask.min);
    ASSERT_LE(replicas, one.ask.max);
    uint32_t next = 0, rank = 0, least = UINT32_MAX, most = 0;
    std::map<std::string, uint64_t> count, bytes;
    for (const MemberRecord& record : decision.members) {
      ASSERT_EQ(record.member.rank(), rank++);
      ASSERT_EQ(record.member.first_virtual_replica(), next) << "runs are contiguous";
      next += record.member.virtual_replica_count();
      least = std::min(least, record.member.virtual_replica_count());
      most = std::max(most, record.member.virtual_replica_count());
      ASSERT_GE(record.threads, 1u);
      ASSERT_LE(record.threads, one.ask.most_threads);
      ++count[record.member.worker_id()];
      bytes[record.member.worker_id()] += one.ask.BytesWith(record.threads);
    }
    ASSERT_EQ(next, one.ask.virtual_replicas);
    ASSERT_GE(least, 1u);
    ASSERT_LE(most - least, 1u) << "even";
    for (const Offer& offer : one.workers) {
      ASSERT_LE(count[offer.worker_id], offer.free_slots);
      if (offer.memory_bytes == 0) continue;
      ASSERT_LE(bytes[offer.worker_id] + offer.BookedBytes(), std::max(offer.memory_bytes, offer.BookedBytes()));
    }
  }
  EXPECT_GT(placed, 1'000);
}

TEST(Scheduler, WhatFitsIsPlaced) {
  constexpr uint64_t kSeed = 7;
  std::mt19937_64 random(kSeed);
  for (int i = 0; i < 20'000; ++i) {
    Case one = RandomCase(random);
    for (Offer& offer : one.workers) {
      offer.free_slots = offer.slots;
      offer.booked.clear();
    }
    ASSERT_EQ(Place(one.ask, one.workers).members.empty(), WhyNever(one.ask, one.workers).has_value()) << "seed " << kSeed << " case " << i;
  }
}

TEST(Scheduler, TheSameInputGivesTheSamePlaces) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 200; ++i) {
    const Case one = RandomCase(random);
    const Decision a = Place(one.ask, one.workers), b = Place(one.ask, one.workers);
    ASSERT_EQ(a.members.size(), b.members.size());
    for (size_t rank = 0; rank < a.members.size(); ++rank) {
      ASSERT_EQ(a.members[rank].member.SerializeAsString(), b.members[rank].member.SerializeAsString());
    }
  }
}

TEST(Scheduler, GoesWhereThereAreTheMostCores) {
  const Decision decision = Place(AskFor(1, 2, 4), {WorkerWith("a", 2, 4), WorkerWith("b", 2, 32)});
  ASSERT_EQ(decision.members.size(), 2u);
  EXPECT_EQ(decision.members[0].member.worker_id(), "b");
  EXPECT_EQ(decision.members[1].member.worker_id(), "b");
  EXPECT_EQ(decision.reason, "running on 2 replicas");
}

TEST(Scheduler, WaitingSaysForWhat) {
  EXPECT_EQ(Place(AskFor(1, 1, 4), {}).reason, "no worker is connected; waiting for more workers");
  Offer busy = WorkerWith("a", 2);
  busy.free_slots = 0;
  Ask ask = AskFor(1, 1, 4);
  ask.base_bytes = 600 * kMiB;
  EXPECT_EQ(Place(ask, {busy}).reason,
            "1 replica of 600 MiB is wanted at least; waiting for slots and memory that other jobs hold: worker a has 0 of 2 slots free");
  Offer full = WorkerWith("b", 2, 4, 3'000 * kMiB);
  full.free_slots = 1;
  full.booked = {{"j1", 700 * kMiB}, {"j2", 1'800 * kMiB}};
  EXPECT_EQ(
      Place(ask, {WorkerWith("a", 4, 4, 500 * kMiB), full}).reason,
      "1 replica of 600 MiB is wanted at least; waiting for slots and memory that other jobs hold: worker b has 1 of 2 slots and 500 MiB "
      "of 3.0 GiB free (j1: 700 MiB, j2: 1800 MiB)");
  EXPECT_THAT(Place(AskFor(3, 3, 4), {WorkerWith("a", 2)}).reason,
              HasSubstr("3 replicas are wanted at least, and the workers known have slots for 2"));
}

TEST(Scheduler, PlansWhereThereAreTheMostSlotsAndTheMemoryForIt) {
  EXPECT_EQ(PlacePlanning(kMiB, {}).reason, "waiting to plan: no worker is connected");
  std::vector<Offer> workers = {WorkerWith("a", 2, 4, 1'000 * kMiB), WorkerWith("b", 3, 4, 1'000 * kMiB)};
  EXPECT_EQ(PlacePlanning(600 * kMiB, workers).worker, &workers[1]);
  workers[1].booked["j1"] = 500 * kMiB;
  EXPECT_EQ(PlacePlanning(600 * kMiB, workers).worker, &workers[0]);
  workers[0].booked["j1"] = 700 * kMiB;
  EXPECT_EQ(PlacePlanning(600 * kMiB, workers).worker, nullptr);
  EXPECT_EQ(PlacePlanning(600 * kMiB, workers).reason,
            "waiting to plan: it takes up to 600 MiB, and worker b has 500 MiB of 1000 MiB free");
  workers[1].booked.clear();
  EXPECT_EQ(PlacePlanning(9'000 * kMiB, workers).worker, &workers[1]) << "a small worker that is idle plans whatever comes";
  workers[0].free_slots = workers[1].free_slots = 0;
  EXPECT_EQ(PlacePlanning(kMiB, workers).reason, "waiting to plan: all workers' slots are in use");
}

}  // namespace
}  // namespace lockstep
