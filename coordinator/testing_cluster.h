#pragma once
// For tests: a coordinator over a scratch folder and a clock that stands still, and workers and trainers that say what they are
// told to. Not thread-safe, but the coordinator is.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/test_folder.h"
#include "coordinator/coordinator.h"
#include "coordinator/store.h"

namespace lockstep {

inline constexpr char kTestVersion[] = "1.2.3";
inline constexpr char kTestDigest[] = "0123456789abcdef0123456789abcdef";

// Sixteen samples a step, four virtual replicas, up to two replicas, three steps.
v1::Job SmallJob();
ArtifactRecord ModelOf(const v1::Job& job);
// What planning of the job would find.
v1::PlanReport PlanOf(const std::string& job_id, const v1::Job& job);
// As every generation computes it.
v1::StepRecord StepOf(uint64_t step, uint64_t generation);

class TestingCluster {
 public:
  explicit TestingCluster(CoordinatorOptions options = {});

  Coordinator* operator->() const { return coordinator_.get(); }
  Coordinator& coordinator() const { return *coordinator_; }
  ManualClock& clock() { return clock_; }
  const TestFolder& folder() const { return folder_; }
  const CoordinatorOptions& options() const { return options_; }

  // As after kill -9: a new one from what is on the disk. Workers have to attend again.
  void Restart();
  // Lets time pass as the coordinator's own thread does: in small steps.
  void Pass(absl::Duration time);

  std::string Submit(const v1::Job& job);
  absl::Status Plan(const std::string& job_id);
  // Steps first..last from rank 0.
  absl::Status Progress(const std::string& job_id, uint64_t generation, uint64_t first, uint64_t last);
  absl::Status End(const std::string& job_id, uint64_t generation, v1::JobState state);
  v1::JobState State(const std::string& job_id) const;
  v1::JobStatus Status(const std::string& job_id) const;

 private:
  const CoordinatorOptions options_;
  TestFolder folder_;
  ManualClock clock_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Coordinator> coordinator_;
};

// Everything about its jobs that must survive a restart, as text: their statuses without what workers report, all their events,
// their artifacts.
std::string DurableState(const Coordinator& coordinator);
// All events of a job, page by page.
std::vector<v1::Event> AllEvents(const Coordinator& coordinator, const std::string& job_id, uint64_t after = 0);

class FakeWorker {
 public:
  FakeWorker(TestingCluster& cluster, const std::string& id, uint32_t slots = 2, uint64_t memory_bytes = uint64_t{8} << 30);

  // A new stream, and the first report on it.
  absl::Status Attend();
  absl::Status Report();
  void Leave();
  v1::WorkerOrders Orders() const;
  // Starts what is ordered and not known yet, stops what is not wanted, and says so.
  void Obey();
  // The trainer ends, and the worker says so. Rank and generation are those by which it was started; without one, of the newest that it
  // was ordered.
  void TrainerEnds(const std::string& job_id, uint32_t rank, int exit_code, int signal, uint64_t generation = 0);
  // As if the process were a new one, which runs nothing.
  void BecomeAnother();

  v1::WorkerReport& report() { return report_; }
  uint64_t stream() const { return stream_; }

 private:
  TestingCluster& cluster_;
  v1::WorkerReport report_;
  uint64_t stream_ = 0;
};

}  // namespace lockstep
