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
    if (offer.memory_bytes > 0) offer.booked_bytes = upto(4'000) * kMiB;
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
      ASSERT_LE(bytes[offer.worker_id] + offer.booked_bytes, std::max(offer.memory_bytes, offer.booked_bytes));
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
      offer.booked_bytes = 0;
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
  EXPECT_EQ(Place(AskFor(1, 1, 4), {busy}).reason, "1 replica is wanted at least; waiting for slots and memory that other jobs hold");
  EXPECT_THAT(Place(AskFor(3, 3, 4), {WorkerWith("a", 2)}).reason,
              HasSubstr("3 replicas are wanted at least, and the workers known have slots for 2"));
}

TEST(Admission, AShortageOfMemorySaysWhatWouldFit) {
  Ask ask = AskFor(2, 2, 4);
  ask.base_bytes = 900 * kMiB;
  ask.pipeline_bytes = 256 * kMiB;
  const std::vector<Offer> one_fits = {WorkerWith("a", 4, 4, 1'000 * kMiB)};
  const auto shortage = WhyNever(ask, one_fits);
  ASSERT_TRUE(shortage.has_value());
  EXPECT_TRUE(shortage->of_memory);
  EXPECT_EQ(shortage->reason,
            "2 replicas of 900 MiB are wanted at least, and the memory of the workers known (the largest has 1000 MiB) is enough for 1");
  EXPECT_EQ(WhatWouldFit(ask, one_fits), "replicas.min: 1 would fit");
  EXPECT_EQ(WhatWouldFit(ask, {WorkerWith("a", 4, 4, 800 * kMiB)}), "data.memory: 156MiB would fit");
  EXPECT_THAT(WhatWouldFit(ask, {WorkerWith("a", 4, 4, 500 * kMiB)}), HasSubstr("a worker with 900 MiB"));
  EXPECT_FALSE(WhyNever(ask, {WorkerWith("a", 4, 4, 2'000 * kMiB)}).has_value());
}

TEST(Admission, ThreadsGiveWayToMemory) {
  Ask ask = AskFor(1, 1, 4);
  ask.base_bytes = 100 * kMiB;
  ask.bytes_per_thread = 50 * kMiB;
  const Offer offer = WorkerWith("a", 4, 4, 1'000 * kMiB);
  EXPECT_EQ(ThreadsFor(ask, offer, 1, 1'000 * kMiB), 4u);
  EXPECT_EQ(ThreadsFor(ask, offer, 1, 200 * kMiB), 3u);
  EXPECT_EQ(ThreadsFor(ask, offer, 1, 100 * kMiB), 1u);
  EXPECT_EQ(ThreadsFor(ask, offer, 1, 99 * kMiB), 0u);
  EXPECT_EQ(ThreadsFor(ask, offer, 2, 1'000 * kMiB), 2u) << "an even share of the cores";
  ask.threads = 3;
  EXPECT_EQ(ThreadsFor(ask, offer, 2, 1'000 * kMiB), 3u) << "as the user fixed them";
}

TEST(Admission, AskIsWithinTheVirtualReplicas) {
  v1::Job job;
  v1::PlanReport plan;
  plan.mutable_resolved()->set_virtual_replicas(4);
  plan.mutable_resolved()->set_batch(16);
  plan.mutable_resolved()->mutable_replicas()->set_max(9);
  plan.mutable_resolved()->mutable_data()->set_memory_bytes(11);
  plan.mutable_profile()->set_peak_bytes(100);
  (*plan.mutable_profile()->mutable_bytes_by_category())["runtime"] = 1000;
  const auto ask = AskOf(job, plan);
  ASSERT_TRUE(ask.ok());
  EXPECT_EQ(ask->min, 1u);
  EXPECT_EQ(ask->max, 4u);
  EXPECT_EQ(ask->base_bytes, 1111u);
  plan.mutable_resolved()->mutable_replicas()->set_min(5);
  EXPECT_EQ(AskOf(job, plan).status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace lockstep
