#pragma once
// The coordinator's folder on disk: the store's file, a folder for each job with its artifacts and log, and files that are
// being received. One coordinator at a time: a lock on a file in it, which the kernel lets go when the process ends.
//
// Thread-safe: no state but the lock.

#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep {

class StateFolder {
 public:
  // Creates it, readable by its owner alone, unless it exists. FailedPrecondition: another coordinator uses it.
  static absl::StatusOr<std::unique_ptr<StateFolder>> Open(const std::string& path);
  ~StateFolder();
  StateFolder(const StateFolder&) = delete;
  StateFolder& operator=(const StateFolder&) = delete;

  std::string StorePath() const;
  // REQUIRES: job ids and file names are plain.
  std::string JobPath(const std::string& job_id, const std::string& file) const;
  // A new name for a file that is being received.
  std::string NewIncomingPath() const;

  // Moves a received file, which is durable already, into the job's folder: there durable, too, once OK.
  absl::Status Adopt(const std::string& incoming, const std::string& job_id, const std::string& file) const;
  // Forgets a file, if it is there.
  void Remove(const std::string& path) const;
  // Removes what was being received, and every file of a job that is neither its log nor in `known` (as JOB/FILE), after a
  // crash. What no job of ours is called is left alone.
  void Sweep(const std::set<std::string>& known) const;

 private:
  StateFolder(std::string path, int lock_fd) : path_(std::move(path)), lock_fd_(lock_fd) {}

  const std::string path_;
  const int lock_fd_;
};

// "log": the one file in a job's folder that is not an artifact's.
inline constexpr char kLogFile[] = "log";

// The name of an artifact's file: of its contents, so that a replaced one is whole until the record of the new one is durable.
std::string ArtifactFileName(const std::string& artifact, const std::string& xxh3_128);

}  // namespace lockstep
