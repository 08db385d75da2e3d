#include "coordinator/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "coordinator/scheduler.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

Offer WorkerWith(uint64_t memory_bytes, uint32_t slots = 4) {
  Offer offer;
  offer.worker_id = "a";
  offer.cores = 4;
  offer.slots = offer.free_slots = slots;
  offer.memory_bytes = memory_bytes;
  return offer;
}

Ask AskFor(uint32_t replicas, uint64_t bytes) {
  Ask ask;
  ask.min = ask.max = replicas;
  ask.virtual_replicas = ask.most_threads = 4;
  ask.base_bytes = bytes;
  return ask;
}

TEST(Admission, AShortageOfMemorySaysWhatWouldFit) {
  Ask ask = AskFor(2, 900 * kMiB);
  ask.pipeline_bytes = 256 * kMiB;
  const std::vector<Offer> one_fits = {WorkerWith(1'000 * kMiB)};
  const auto shortage = WhyNever(ask, one_fits);
  ASSERT_TRUE(shortage.has_value());
  EXPECT_TRUE(shortage->of_memory);
  EXPECT_EQ(shortage->reason,
            "2 replicas of 900 MiB are wanted at least, and the memory of the workers known (the largest has 1000 MiB) is enough for 1");
  EXPECT_EQ(WhatWouldFit(ask, one_fits), "replicas.min: 1 would fit; or further workers with 900 MiB");
  EXPECT_EQ(WhatWouldFit(ask, {WorkerWith(800 * kMiB)}), "data.memory: 156MiB would fit; or a worker with 900 MiB");
  EXPECT_EQ(WhatWouldFit(ask, {WorkerWith(500 * kMiB)}),
            "it takes a worker with 900 MiB, or a smaller micro_batch, batch or data.image.size");
  EXPECT_FALSE(WhyNever(ask, {WorkerWith(2'000 * kMiB)}).has_value());
}

TEST(Admission, OfAPlanForADeviceTheHostsBytesAreBookedAndNotTheDevices) {
  v1::PlanReport plan;
  plan.mutable_resolved()->set_virtual_replicas(8);
  plan.mutable_resolved()->mutable_replicas()->set_max(2);
  v1::MemoryProfile& profile = *plan.mutable_profile();
  profile.set_device(v1::Job::CUDA);
  profile.set_resident_bytes(20'000 * kMiB);
  profile.set_peak_bytes(18'000 * kMiB);
  profile.set_bytes_per_further_thread(9'000 * kMiB);
  profile.set_largest_batch(64);
  profile.mutable_host()->set_resident_bytes(2'500 * kMiB);
  const auto ask = AskOf(v1::Job(), plan);
  ASSERT_TRUE(ask.ok()) << ask.status();
  EXPECT_EQ(ask->BytesWith(1), 2'500 * kMiB);
  EXPECT_EQ(ask->BytesWith(4), 2'500 * kMiB);
  EXPECT_EQ(ask->max, 2u);
}

TEST(Admission, WhatPlanningKnowsToFitIsSaid) {
  Ask ask = AskFor(1, 9'300 * kMiB);
  ask.batch = 64;
  ask.largest_batch = 48;
  ask.largest_batch_bytes = 8'000 * kMiB;
  ask.remedies = {{"recomputing 3 segments in backward", 8'500 * kMiB}, {"a micro-batch of 4 instead of 8", 7'000 * kMiB}};
  EXPECT_EQ(WhatWouldFit(ask, {WorkerWith(8'000 * kMiB)}),
            "a micro-batch of 4 instead of 8 would fit (6.9 GiB); a batch of 48 would fit; or a worker with 9.1 GiB");
  EXPECT_EQ(WhatWouldFit(ask, {WorkerWith(7'500 * kMiB)}), "a micro-batch of 4 instead of 8 would fit (6.9 GiB); or a worker with 9.1 GiB")
      << "48 is the largest batch for more memory than there is";
}

TEST(Admission, ThreadsGiveWayToMemory) {
  Ask ask = AskFor(1, 100 * kMiB);
  ask.bytes_per_thread = 50 * kMiB;
  const Offer offer = WorkerWith(1'000 * kMiB);
  EXPECT_EQ(ThreadsFor(ask, offer, 1, 1'000 * kMiB), 4u);
  EXPECT_EQ(ThreadsFor(ask, offer, 1, 200 * kMiB), 3u);
  EXPECT_EQ(ThreadsFor(ask, offer, 1, 100 * kMiB), 1u);
  EXPECT_EQ(ThreadsFor(ask, offer, 1, 99 * kMiB), 0u);
  EXPECT_EQ(ThreadsFor(ask, offer, 2, 1'000 * kMiB), 2u) << "an even share of the cores";
  ask.threads = 3;
  EXPECT_EQ(ThreadsFor(ask, offer, 2, 1'000 * kMiB), 3u) << "as the user fixed them";
}

v1::PlanReport PlanOf(uint32_t virtual_replicas) {
  v1::PlanReport plan;
  plan.mutable_resolved()->set_virtual_replicas(virtual_replicas);
  plan.mutable_resolved()->set_batch(16);
  plan.mutable_resolved()->mutable_replicas()->set_max(9);
  plan.mutable_resolved()->mutable_data()->set_memory_bytes(11);
  plan.mutable_profile()->set_peak_bytes(100);
  plan.mutable_profile()->set_bytes_per_further_thread(30);
  (*plan.mutable_profile()->mutable_bytes_by_category())["runtime"] = 1000;
  return plan;
}

TEST(Admission, AskIsWithinTheVirtualReplicas) {
  v1::PlanReport plan = PlanOf(4);
  const auto ask = AskOf({}, plan);
  ASSERT_TRUE(ask.ok());
  EXPECT_EQ(ask->min, 1u);
  EXPECT_EQ(ask->max, 4u);
  plan.mutable_resolved()->mutable_replicas()->set_min(5);
  EXPECT_EQ(AskOf({}, plan).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(Admission, BooksTheWholeProcessAsItWasPredicted) {
  v1::PlanReport plan = PlanOf(4);
  EXPECT_EQ(AskOf({}, plan)->BytesWith(1), 1111u) << "a record of before whole processes were predicted: tensors, pipeline, runtime";
  plan.mutable_profile()->set_resident_bytes(2'000);
  plan.mutable_profile()->set_threads(3);
  EXPECT_EQ(AskOf({}, plan)->BytesWith(3), 2'000u);
  EXPECT_EQ(AskOf({}, plan)->BytesWith(1), 1'940u);
  auto& remedies = *plan.mutable_profile()->mutable_remedies();
  for (const auto& [text, bytes, applied] : {std::tuple("applied", 1'000, true), {"larger", 1'950, false}, {"smaller", 1'500, false}}) {
    v1::Remedy& remedy = *remedies.Add();
    remedy.set_text(text);
    remedy.set_resident_bytes(bytes);
    remedy.set_applied(applied);
  }
  const Ask ask = *AskOf({}, plan);
  ASSERT_EQ(ask.remedies.size(), 1u);
  EXPECT_EQ(ask.remedies[0].text, "smaller");
}

// Workers that run jobs, as a random walk: what comes, grows, ends, and is lost.
class Walk {
 public:
  explicit Walk(uint64_t seed) : random_(seed) {
    for (uint32_t i = 0, count = 1 + Upto(4); i < count; ++i) AddWorker();
  }

  void Step() {
    switch (Upto(5)) {
      case 0:
      case 1:
      case 2: return Come();
      case 3: return Grow();
      case 4: return End();
      default: return Upto(3) == 0 ? Lose() : End();
    }
  }
  int placed() const { return placed_; }
  int waited() const { return waited_; }
  int never() const { return never_; }
  int grown() const { return grown_; }

 private:
  struct Running {
    std::string id;
    Ask ask;
    std::vector<MemberRecord> members;
  };

  uint32_t Upto(uint64_t most) { return static_cast<uint32_t>(random_() % (most + 1)); }

  void AddWorker() {
    Offer& offer = workers_.emplace_back(WorkerWith(Upto(4) == 0 ? 0 : (500 + Upto(8'000)) * kMiB, 1 + Upto(4)));
    offer.worker_id = absl::StrCat("w", ++last_worker_);
    offer.cores = 1 + Upto(15);
  }

  std::vector<Offer> Offers(const Running* asking = nullptr) const {
    std::vector<Offer> offers = workers_;
    for (Offer& offer : offers) {
      for (const Running& job : running_) {
        for (const MemberRecord& record : job.members) {
          if (record.member.worker_id() != offer.worker_id) continue;
          --offer.free_slots;
          offer.booked[job.id] += job.ask.BytesWith(record.threads);
          offer.own += &job == asking ? 1 : 0;
        }
      }
    }
    return offers;
  }

  // The law.
  void Check() const {
    for (const Offer& offer : workers_) {
      uint64_t bytes = 0, trainers = 0;
      for (const Running& job : running_) {
        for (const MemberRecord& record : job.members) {
          if (record.member.worker_id() != offer.worker_id) continue;
          ASSERT_GE(record.threads, 1u);
          bytes += job.ask.BytesWith(record.threads);
          ++trainers;
        }
      }
      ASSERT_LE(trainers, offer.slots) << offer.worker_id;
      ASSERT_LE(bytes, offer.memory_bytes == 0 ? UINT64_MAX : offer.memory_bytes) << offer.worker_id;
    }
  }

  Ask RandomAsk() {
    Ask ask;
    ask.virtual_replicas = 1 + Upto(15);
    ask.min = 1 + (Upto(1) == 0 ? 0 : Upto(std::min(ask.virtual_replicas - 1, 5u)));
    ask.max = ask.min + Upto(ask.virtual_replicas - ask.min);
    ask.threads = Upto(2) == 0 ? 1 + Upto(3) : 0;
    ask.most_threads = 1 + Upto(7);
    ask.base_bytes = (1 + Upto(4'000)) * kMiB;
    ask.bytes_per_thread = Upto(3) == 0 ? 0 : Upto(500) * kMiB;
    return ask;
  }

  // How many replicas idle workers hold, by division alone.
  uint64_t Capacity(const Ask& ask) const {
    uint64_t capacity = 0;
    for (const Offer& offer : workers_) {
      capacity += offer.memory_bytes == 0 ? offer.slots : std::min<uint64_t>(offer.slots, offer.memory_bytes / ask.base_bytes);
    }
    return capacity;
  }

  void Come() {
    const Ask ask = RandomAsk();
    const std::vector<Offer> offers = Offers();
    const Decision decision = Place(ask, offers);
    const auto never = WhyNever(ask, offers);
    ASSERT_EQ(never.has_value(), Capacity(ask) < ask.min) << "never, exactly where idle workers could not run it";
    const Decision idle = Place(ask, workers_);
    ASSERT_EQ(idle.members.empty(), never.has_value());
    const Decision again = Place(ask, offers);
    ASSERT_EQ(again.reason, decision.reason);
    ASSERT_EQ(again.members.size(), decision.members.size());
    for (size_t i = 0; i < again.members.size(); ++i) {
      ASSERT_EQ(again.members[i].member.SerializeAsString(), decision.members[i].member.SerializeAsString());
      ASSERT_EQ(again.members[i].threads, decision.members[i].threads);
    }
    if (decision.members.empty()) {
      ++(never ? never_ : waited_);
      if (workers_.empty()) return;
      const bool of_memory = !never || never->of_memory;
      ASSERT_THAT(decision.reason, HasSubstr(of_memory ? BytesText(ask.base_bytes) : "slots"));
      if (never && of_memory) {
        ASSERT_THAT(WhatWouldFit(ask, offers), HasSubstr(Capacity(ask) > 0 ? "replicas.min: " : "a worker with "));
      }
      return;
    }
    ++placed_;
    running_.push_back({absl::StrCat("j", ++jobs_), ask, decision.members});
    Check();
  }

  void Grow() {
    if (running_.empty()) return;
    Running& job = running_[Upto(running_.size() - 1)];
    const auto room = static_cast<uint32_t>(job.ask.max - std::min<size_t>(job.ask.max, job.members.size()));
    const std::vector<MemberRecord> more = PlaceMore(job.ask, Offers(&job), room);
    ASSERT_LE(more.size(), room);
    grown_ += more.empty() ? 0 : 1;
    job.members.insert(job.members.end(), more.begin(), more.end());
    Check();
  }

  void End() {
    if (running_.empty()) return;
    running_.erase(running_.begin() + Upto(running_.size() - 1));
  }

  void Lose() {
    if (workers_.empty()) return;
    const std::string lost = workers_[Upto(workers_.size() - 1)].worker_id;
    std::erase_if(workers_, [&](const Offer& offer) { return offer.worker_id == lost; });
    for (Running& job : running_) {
      std::erase_if(job.members, [&](const MemberRecord& record) { return record.member.worker_id() == lost; });
    }
    std::erase_if(running_, [](const Running& job) { return job.members.empty(); });
    if (Upto(1) == 0) AddWorker();
    Check();
  }

  std::mt19937_64 random_;
  std::vector<Offer> workers_;
  std::vector<Running> running_;
  int last_worker_ = 9;  // so that they sort as text
  int jobs_ = 0, placed_ = 0, waited_ = 0, never_ = 0, grown_ = 0;
};

TEST(Admission, NoPlacementEverPassesAWorkersMemoryOrSlots) {
  constexpr uint64_t kFirstSeed = 5;
  int placed = 0, waited = 0, never = 0, grown = 0;
  for (uint64_t seed = kFirstSeed; seed < kFirstSeed + 3'000; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Walk walk(seed);
    for (int step = 0; step < 40 && !testing::Test::HasFatalFailure(); ++step) walk.Step();
    if (HasFatalFailure()) return;
    placed += walk.placed(), waited += walk.waited(), never += walk.never(), grown += walk.grown();
  }
  std::printf("placed %d, waited %d, never %d, grown %d\n", placed, waited, never, grown);
  EXPECT_GT(std::min({placed, waited, never, grown}), 800) << "each case is met often";
}

}  // namespace
}  // namespace lockstep
