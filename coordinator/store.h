#pragma once
// The store: everything that the coordinator has answered "yes" to, in one SQLite file (docs/coordinator.md describes its
// tables).
//
// Apply is the one door. It returns OK once the change is on the disk, whole (WAL, synchronous=FULL); the coordinator acts and
// answers after that. After a failed write nobody can know what is on the disk, so the store is poisoned: every later Apply
// fails with Unavailable, while reads go on; a restart begins from what is durable.
//
// Thread-safe: writes exclude each other, reads exclude each other, the two do not.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/record.h"

namespace lockstep {

class Store {
 public:
  // Creates the file if there is none. FailedPrecondition: it was made by a later version. DataLoss: it is no store.
  static absl::StatusOr<std::unique_ptr<Store>> Open(const std::string& path);
  ~Store();

  absl::Status Apply(const Change& change);
  // OK, or why nothing can be acknowledged any more.
  absl::Status health() const;

  // In the order of submission.
  absl::StatusOr<std::vector<StoredJob>> LoadJobs() const;
  // Events of a job with sequences above `after`, in order, at most `limit`.
  absl::StatusOr<std::vector<v1::Event>> ReadEvents(const std::string& job_id, uint64_t after, int limit) const;
  // Committed steps first..last of a job, in order.
  absl::StatusOr<std::vector<v1::StepRecord>> ReadSteps(const std::string& job_id, uint64_t first, uint64_t last) const;

 private:
  struct Writer;
  struct Reader;

  Store(std::unique_ptr<Writer> writer, std::unique_ptr<Reader> reader);
  absl::Status Write(const Change& change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mutex_);
  absl::StatusOr<StoredJob> LoadJob(JobRecord record) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mutex_);
  absl::Status LoadGeneration(StoredJob& job) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mutex_);

  mutable absl::Mutex write_mutex_;
  const std::unique_ptr<Writer> writer_ ABSL_PT_GUARDED_BY(write_mutex_);
  absl::Status poison_ ABSL_GUARDED_BY(write_mutex_);

  mutable absl::Mutex read_mutex_;
  const std::unique_ptr<Reader> reader_ ABSL_PT_GUARDED_BY(read_mutex_);
};

}  // namespace lockstep
