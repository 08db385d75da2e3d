#pragma once
// What the coordinator is to be told: which trainers run now, which have ended, and what they wrote. Stands between the
// supervisor, which fills it, and the link to the coordinator, which sends it. Thread-safe.
//
// An end and a line stay here until a report that held them is acknowledged, so that neither is lost while the coordinator is
// away; lines only within 4 MiB, beyond which the oldest go and a line says how many.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "proto/cluster.pb.h"
#include "worker/bell.h"
#include "worker/reconcile.h"

namespace lockstep {

inline constexpr size_t kMostLogBytes = 4 << 20;
// Of log text in one report, well under gRPC's limit of 4 MiB for a message.
inline constexpr size_t kMostLogBytesInReport = 512 << 10;

class Outbox {
 public:
  // `bell` rings when there is something that should not wait for the next heartbeat.
  explicit Outbox(Bell* bell) : bell_(bell) {}

  void SetRunning(std::vector<v1::TrainerReport> running);
  void AddEnded(const TrainerKey& key, v1::TrainerReport report);
  // `text`: whole lines.
  void AddLog(const TrainerKey& key, std::string text);

  // Adds all trainers, and lines as far as they go into one report. Takes the urgency with it.
  void Fill(uint64_t sequence, v1::WorkerReport* report);
  // The reports up to `sequence` were taken in.
  void Acknowledge(uint64_t sequence);

  // Something has happened since the last Fill that the coordinator should hear at once.
  bool urgent() const;
  // Whether the end of this trainer was acknowledged (or never added).
  bool IsAcknowledged(const TrainerKey& key) const;
  std::vector<v1::TrainerReport> Running() const;

 private:
  // `sequence`: of the newest report that holds it; 0 before the first.
  struct Ended {
    v1::TrainerReport report;
    uint64_t sequence = 0;
  };
  struct Lines {
    TrainerKey key;
    std::string text;
    uint64_t sequence = 0;
  };

  void DropOldestLines() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetUrgent() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Bell* const bell_;

  mutable absl::Mutex mutex_;
  std::vector<v1::TrainerReport> running_ ABSL_GUARDED_BY(mutex_);
  std::map<TrainerKey, Ended> ended_ ABSL_GUARDED_BY(mutex_);
  std::deque<Lines> logs_ ABSL_GUARDED_BY(mutex_);
  size_t log_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t lines_dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  bool urgent_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace lockstep
