#pragma once
// The trainer's line to the coordinator: files in and out, rendezvous, progress. Calls that fail because the coordinator is away
// are made again until it is back, or the trainer is told to end. No libtorch.
//
// Thread-safety: the blocking calls belong to one thread; Report* and Close may come from any.

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <optional>
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
#include "rpc/file_stream.h"

namespace lockstep {

class Link {
 public:
  explicit Link(const v1::TrainerStart& start);
  ~Link();

  // Into `path`, checked against the sender's checksum.
  absl::Status Fetch(const std::string& artifact, const std::string& path);
  absl::Status Store(const std::string& artifact, const std::string& path);
  // A checkpoint is durable in the job's checkpoint.folder. Gives the names of those that the coordinator knows from then on.
  absl::StatusOr<std::vector<std::string>> TellKept(const std::string& checkpoint, const FileDigest& digest);
  // FailedPrecondition names what differs among the ranks' environments.
  absl::StatusOr<std::vector<allreduce::Endpoint>> Rendezvous(const allreduce::Endpoint& mine,
                                                              const std::map<std::string, std::string>& environment);
  // Waits until there is a generation newer than ours, and gives this trainer's order in it; from then on the link speaks for that one.
  // `why`: finished, reason and silent_ranks. FailedPrecondition: we have no place in any, or the job has ended.
  absl::StatusOr<v1::TrainerOrder> Regroup(v1::RegroupRequest why);
  uint64_t generation() const;
  uint32_t rank() const;
  absl::Status ReportPlan(const v1::PlanReport& report);
  // After everything queued has been answered. FailedPrecondition: the generation is over.
  absl::Status ReportEnd(v1::EndReport report);

  // Queues for sending in order. Steps and epochs are sent by rank 0 alone, once all replicas agree on the state after them, and kept by
  // the others until they are known to be durable: whoever is rank 0 of the next generation sends what this one's left unsent. Rank 0 waits
  // only while the queue is full (10,000 records), which takes a coordinator that is away for long.
  void QueueStep(v1::StepRecord record);
  void QueueEpoch(v1::EpochRecord record);
  void QueuePass(v1::PassRecord record);
  void QueueNote(std::string note);
  // Rank 0 says that they are durable up to this step: the others need not keep them.
  void Forget(uint64_t durable_step);
  // All replicas agree on the state after this step.
  void Agreed(uint64_t step);
  // What is queued of steps and epochs, for a trainer that has not seen them; there it takes the place of what is queued.
  std::string Records() const;
  void TakeRecords(const std::string& records);
  // As far as the coordinator has answered.
  uint64_t durable_step() const { return durable_step_; }

  // Wakes everybody: calls fail with Cancelled from now on.
  void Close();

 private:
  absl::Status Retry(const char* what, absl::FunctionRef<absl::Status()> call);
  void Queue(absl::FunctionRef<void()> add);
  void SendLoop();
  size_t Sendable() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool Over() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return over_ == generation_; }
  bool QueueReady() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closed_ || (!Over() && Sendable() > 0); }
  bool Drained() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  v1::ProgressReport TakeReport() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeAnswer(const v1::ProgressReport& report, const v1::ProgressAck& ack) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string job_id_;
  const uint64_t process_generation_;
  const uint32_t process_rank_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Cluster::Stub> stub_;
  std::atomic<uint64_t> durable_step_{0};

  mutable absl::Mutex mutex_;
  uint64_t generation_ ABSL_GUARDED_BY(mutex_);
  uint32_t rank_ ABSL_GUARDED_BY(mutex_);
  // The generation for which the coordinator takes nothing any more; 0: none.
  uint64_t over_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t agreed_ ABSL_GUARDED_BY(mutex_) = 0;
  // Not yet answered, or not known to be durable.
  std::deque<v1::StepRecord> steps_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::EpochRecord> epochs_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> notes_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::PassRecord> pass_ ABSL_GUARDED_BY(mutex_);
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  std::thread sender_;
};

}  // namespace lockstep
