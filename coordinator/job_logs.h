#pragma once
// What trainers wrote, a file a job. Lines are not durable facts: they are appended, not flushed, and a file that is full says
// so in its last line and drops the rest.
//
// Thread-safe.

#include <cstdint>
#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/state_folder.h"
#include "proto/cluster.pb.h"

namespace lockstep {

class JobLogs {
 public:
  static constexpr int64_t kMostBytes = 64 << 20;

  explicit JobLogs(const StateFolder& folder, int64_t most_bytes = kMostBytes) : folder_(folder), most_bytes_(most_bytes) {}

  // Each line with "generation.rank " before it. REQUIRES: the job exists.
  absl::Status Append(const v1::LogLines& lines);
  // Whole lines from `offset` on, at most about 64 KiB; waits for some up to `wait`. Empty: there are none.
  absl::StatusOr<std::string> Read(const std::string& job_id, int64_t offset, absl::Duration wait);

 private:
  struct File {
    int64_t bytes = 0;
    bool full = false;
  };
  // From the disk when first asked.
  File& FileOf(const std::string& job_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const StateFolder& folder_;
  const int64_t most_bytes_;

  absl::Mutex mutex_;
  std::map<std::string, File> files_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace lockstep
