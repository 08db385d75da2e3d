#pragma once
// Makes what runs on this host equal to what the coordinator wants. One thread starts, watches, stops and reaps all trainers;
// it is also the thread whose death kills them, so it lives until the supervisor is destroyed, after the last of them is gone.
//
// Thread-safe. Invariants: every process that was started is reaped; at most one process for a TrainerKey, ever.

#include <poll.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/file_descriptor.h"
#include "proto/cluster.pb.h"
#include "worker/outbox.h"
#include "worker/reconcile.h"
#include "worker/trainer_process.h"

namespace lockstep {

struct SupervisorOptions {
  // The program to run.
  std::string trainer;
  // Every trainer gets a folder of its own in it.
  std::string scratch;
  // What all trainers are told; the supervisor adds order and scratch.
  v1::TrainerStart start;
  ReconcileOptions stopping;
  // Until the coordinator says how long a trainer may give no sign of life.
  absl::Duration silence = absl::Seconds(10);
};

// Since this worker started.
struct TrainerCounts {
  uint64_t started = 0;
  uint64_t done = 0;         // exit status 0
  uint64_t failed = 0;       // another exit status
  uint64_t crashed = 0;      // a signal that did not come from us
  uint64_t silent = 0;       // killed because it gave no sign of life
  uint64_t stopped = 0;      // not wanted any more, and told so by a signal
  uint64_t not_started = 0;  // the program could not be run
};

class Supervisor {
 public:
  Supervisor(SupervisorOptions options, Outbox* outbox);
  // Kills and reaps what still runs.
  ~Supervisor();

  // The desired state, whole. Returns at once.
  void SetOrders(v1::WorkerOrders orders);
  // Takes no more orders and stops everything: SIGTERM now, SIGKILL after the grace. DeadlineExceeded: the kernel did not let
  // one die within another ten seconds.
  absl::Status Drain();
  // To be called after the outbox took in an acknowledgement.
  void Wake();

  TrainerCounts counts() const;

 private:
  struct Entry {
    v1::TrainerOrder order;
    ActualTrainer actual;
    std::unique_ptr<TrainerProcess> process;  // none once it has ended
  };

  void Loop();
  void TakeOrders();
  // Until when to wait for the next event.
  absl::Time Step();
  void Start(const TrainerKey& key);
  void Stop(const TrainerKey& key, int signal);
  // Kills those that were silent for too long. When to look again.
  absl::Time WatchSilence();
  void Poll(absl::Time until);
  void Serve(Entry* entry, const pollfd* ready);
  void TakeEnd(Entry* entry);
  void Publish();
  void Count(uint64_t TrainerCounts::*what);
  std::string ScratchOf(const TrainerKey& key);

  const SupervisorOptions options_;
  Outbox* const outbox_;
  const FileDescriptor wake_;

  // Of the loop's thread alone.
  std::map<TrainerKey, v1::TrainerOrder> wanted_;
  std::map<TrainerKey, Entry> entries_;
  bool stopping_ = false;
  absl::Duration silence_;
  absl::Time last_look_ = absl::InfinitePast();

  mutable absl::Mutex mutex_;
  std::optional<v1::WorkerOrders> orders_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool quit_ ABSL_GUARDED_BY(mutex_) = false;
  bool idle_ ABSL_GUARDED_BY(mutex_) = false;  // draining, and nothing runs
  TrainerCounts counts_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace lockstep
