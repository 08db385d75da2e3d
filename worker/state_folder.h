#pragma once
// The folder in which a worker keeps what outlives it, which is only its id, and the scratch folders of its trainers. One
// worker at a time may hold one. Thread-safe after Open.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "base/file_descriptor.h"

namespace lockstep {

class StateFolder {
 public:
  // Makes the folder if there is none, and empties its scratch of what dead workers left. Unavailable: another worker holds it.
  static absl::StatusOr<std::unique_ptr<StateFolder>> Open(const std::string& path);
  // Empties the scratch and lets go of the folder.
  ~StateFolder();

  // "HOST-1a2b3c4d", made when the folder was.
  const std::string& worker_id() const { return worker_id_; }
  const std::string& scratch() const { return scratch_; }

 private:
  StateFolder() = default;

  FileDescriptor lock_;
  std::string worker_id_;
  std::string scratch_;
};

}  // namespace lockstep
