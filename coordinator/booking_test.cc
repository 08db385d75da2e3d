// What the coordinator books: a random walk of jobs that come, plan, grow and end, of trainers that die and workers that are lost, through
// the coordinator itself. No worker is ever ordered, nor left with, more trainers than its memory and slots hold.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

class Walk {
 public:
  explicit Walk(uint64_t seed) : random_(seed) {
    for (uint32_t i = 0; i < 3; ++i) {
      auto worker = std::make_unique<FakeWorker>(cluster_, absl::StrCat("w", i), 1 + Upto(3), (700 + Upto(3'000)) * kMiB);
      EXPECT_TRUE(worker->Attend().ok());
      workers_.push_back({std::move(worker), true});
    }
  }

  void Step() {
    switch (Upto(9)) {
      case 0:
      case 1: return Submit();
      case 2: return End();
      case 3: return Die();
      case 4: return Upto(3) == 0 ? LoseOrReturn() : Obey();
      case 5: return Wait();
      case 6:
      case 7: return Plan();
      default: return Obey();
    }
  }

  // Everything that is ordered, or that runs though it is not ordered any more. What plans is left out where its plan has been reported
  // before its worker has told of it.
  void Check() {
    for (const Worker& worker : workers_) {
      if (!worker.here) continue;
      std::map<Key, uint64_t> bytes;
      size_t slots = 0;
      const v1::WorkerOrders orders = worker.fake->Orders();
      for (const v1::TrainerOrder& order : orders.trainers()) {
        const Key key(order.job_id(), order.generation(), order.rank());
        const uint64_t memory = worker.fake->report().memory_bytes();
        bytes_of_[key] = order.role() == v1::PLAN ? std::min(PlanningBytes(order.job()), memory) : BytesOf(order.job_id(), order.threads());
        bytes[key] = bytes_of_[key];
        ASSERT_EQ(order.memory_bytes(), order.role() == v1::PLAN ? Largest() : 0u);
      }
      slots = bytes.size();
      for (const v1::TrainerReport& trainer : worker.fake->report().trainers()) {
        const Key key(trainer.job_id(), trainer.generation(), trainer.rank());
        if (trainer.ended()) continue;
        if (bytes.emplace(key, bytes_of_[key]).second && trainer.role() != v1::PLAN) ++slots;
      }
      uint64_t total = 0;
      for (const auto& [key, of_trainer] : bytes) total += of_trainer;
      ASSERT_LE(total, worker.fake->report().memory_bytes()) << worker.fake->report().worker_id();
      ASSERT_LE(slots, worker.fake->report().slots()) << worker.fake->report().worker_id();
      most_together_ = std::max(most_together_, bytes.size());
    }
    CheckRefused();
  }
  size_t most_together() const { return most_together_; }
  int trained() const { return trained_; }
  int refused() const { return static_cast<int>(refused_.size()); }

 private:
  using Key = std::tuple<std::string, uint64_t, uint32_t>;
  struct Worker {
    std::unique_ptr<FakeWorker> fake;
    bool here = false;
  };

  uint32_t Upto(uint64_t most) { return static_cast<uint32_t>(random_() % (most + 1)); }

  uint64_t Largest() const {
    uint64_t largest = 0;
    for (const Worker& worker : workers_) largest = std::max(largest, worker.here ? worker.fake->report().memory_bytes() : 0);
    return largest;
  }
  uint64_t BytesOf(const std::string& job, uint32_t threads) const {
    const v1::MemoryProfile& profile = plans_.at(job).profile();
    return profile.resident_bytes() + (uint64_t{threads} - profile.threads()) * profile.bytes_per_further_thread();
  }

  void Submit() {
    v1::Job job = SmallJob();
    job.mutable_replicas()->set_min(1 + Upto(2));
    job.mutable_replicas()->set_max(job.replicas().min() + Upto(2));
    jobs_.push_back(cluster_.Submit(job));
  }

  std::vector<std::string> JobsThatAre(v1::JobState state) const {
    std::vector<std::string> jobs;
    for (const std::string& job : jobs_) {
      if (cluster_.State(job) == state) jobs.push_back(job);
    }
    return jobs;
  }

  void Plan() {
    Obey();
    for (const std::string& job : JobsThatAre(v1::PLANNING)) {
      v1::PlanReport plan = PlanOf(job, cluster_.Status(job).job());
      v1::MemoryProfile& profile = *plan.mutable_profile();
      profile.set_threads(1 + Upto(3));
      profile.set_bytes_per_further_thread(Upto(200) * kMiB);
      profile.set_resident_bytes((100 + Upto(1'500)) * kMiB + (profile.threads() - 1) * profile.bytes_per_further_thread());
      plan.mutable_resolved()->mutable_replicas()->set_threads(profile.threads());
      plans_[job] = plan;
      EXPECT_TRUE(cluster_->ReportPlan(plan).ok());
      Check();
    }
  }

  void End() {
    const std::vector<std::string> running = JobsThatAre(v1::RUNNING);
    if (running.empty()) return;
    const std::string& job = running[Upto(running.size() - 1)];
    if (cluster_.End(job, cluster_.Status(job).generation(), v1::DONE).ok()) ++trained_;
  }

  void Die() {
    Worker& worker = workers_[Upto(workers_.size() - 1)];
    if (!worker.here || worker.fake->report().trainers().empty()) return;
    const v1::TrainerReport trainer = worker.fake->report().trainers(0);
    if (!trainer.ended()) worker.fake->TrainerEnds(trainer.job_id(), trainer.rank(), 0, SIGKILL, trainer.generation());
  }

  void Obey() {
    for (const Worker& worker : workers_) {
      if (!worker.here) continue;
      worker.fake->Obey();
    }
  }

  // For what must not start again at once.
  void Wait() {
    for (uint32_t i = 0, seconds = 1 + Upto(5); i < seconds; ++i) {
      cluster_.Pass(absl::Seconds(1));
      Obey();
    }
  }

  void LoseOrReturn() {
    Worker& worker = workers_[Upto(workers_.size() - 1)];
    if (worker.here) {
      worker.fake->BecomeAnother();
      worker.here = false;
      cluster_.Pass(cluster_.options().lease * 2);
      for (Worker& other : workers_) {
        if (other.here) other.here = other.fake->Attend().ok();
      }
    } else {
      worker.here = worker.fake->Attend().ok();
    }
  }

  // Never, exactly where the workers that are here could not run it if they were idle.
  void CheckRefused() {
    for (const std::string& job : JobsThatAre(v1::REFUSED)) {
      if (!refused_.insert(job).second) continue;
      const v1::MemoryProfile& profile = plans_.at(job).profile();
      const uint64_t least = profile.resident_bytes() - (profile.threads() - 1) * profile.bytes_per_further_thread();
      uint64_t capacity = 0;
      for (const Worker& worker : workers_) {
        const v1::WorkerReport& report = worker.fake->report();
        if (worker.here) capacity += std::min<uint64_t>(report.slots(), report.memory_bytes() / least);
      }
      const v1::JobStatus status = cluster_.Status(job);
      ASSERT_LT(capacity, status.job().replicas().min());
      ASSERT_EQ(status.failure(), v1::OUT_OF_MEMORY);
      ASSERT_THAT(status.reason(), HasSubstr(BytesText(least)));
    }
  }

  std::mt19937_64 random_;
  TestingCluster cluster_;
  std::vector<Worker> workers_;
  std::vector<std::string> jobs_;
  std::map<std::string, v1::PlanReport> plans_;
  std::map<Key, uint64_t> bytes_of_;
  std::set<std::string> refused_;
  size_t most_together_ = 0;
  int trained_ = 0;
};

TEST(Booking, NoWorkerIsEverGivenMoreThanItHolds) {
  constexpr uint64_t kFirstSeed = 11;
  size_t together = 0;
  int trained = 0, refused = 0;
  for (uint64_t seed = kFirstSeed; seed < kFirstSeed + 8; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Walk walk(seed);
    for (int step = 0; step < 60; ++step) {
      SCOPED_TRACE(absl::StrCat("step ", step));
      walk.Step();
      walk.Check();
      if (HasFailure()) return;
    }
    together = std::max(together, walk.most_together());
    trained += walk.trained(), refused += walk.refused();
  }
  EXPECT_GT(together, 2u) << "several share a worker";
  EXPECT_GT(trained, 20);
  EXPECT_GT(refused, 2);
}

}  // namespace
}  // namespace lockstep
