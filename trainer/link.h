#pragma once
// The trainer's line to the coordinator: files in and out, rendezvous, progress. Calls that fail because the coordinator is away
// are made again until it is back, or the trainer is told to end. No libtorch.
//
// Thread-safety: the blocking calls belong to one thread; Report* and Close may come from any.

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "allreduce/rendezvous.h"
#include "proto/cluster.grpc.pb.h"

namespace lockstep {

class Link {
 public:
  explicit Link(const v1::TrainerStart& start);
  ~Link();

  // Into `path`, checked against the sender's checksum.
  absl::Status Fetch(const std::string& artifact, const std::string& path);
  absl::Status Store(const std::string& artifact, const std::string& path);
  // FailedPrecondition names what differs among the ranks' environments.
  absl::StatusOr<std::vector<allreduce::Endpoint>> Rendezvous(const allreduce::Endpoint& mine,
                                                              const std::map<std::string, std::string>& environment);
  absl::Status ReportPlan(const v1::PlanReport& report);
  // After everything queued has been answered.
  absl::Status ReportEnd(const v1::EndReport& report);

  // Queues for sending in order; waits only while the queue is full (10,000 records), which takes a coordinator that is away
  // for long.
  void QueueStep(v1::StepRecord record);
  void QueueEpoch(v1::EpochRecord record);
  void QueuePass(v1::PassRecord record);
  void QueueNote(std::string note);
  void SetTotalSteps(uint64_t steps) { total_steps_ = steps; }

  // Wakes everybody: calls fail with Cancelled from now on.
  void Close();

 private:
  absl::Status Retry(const char* what, absl::FunctionRef<absl::Status()> call);
  void Queue(absl::FunctionRef<void(v1::ProgressReport*)> add);
  void SendLoop();
  bool QueueReady() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool Drained() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const std::string job_id_;
  const uint64_t generation_;
  const uint32_t rank_;
  const std::unique_ptr<v1::Cluster::Stub> stub_;
  std::atomic<uint64_t> total_steps_{0};

  absl::Mutex mutex_;
  v1::ProgressReport pending_ ABSL_GUARDED_BY(mutex_);
  int queued_ ABSL_GUARDED_BY(mutex_) = 0;
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  std::thread sender_;
};

}  // namespace lockstep
