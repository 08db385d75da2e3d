#pragma once
// A coordinator and a worker of this process's own: on loopback, on free ports, with a token of their own, in a temporary folder.
// The default of fit, evaluate and predict. All of it ends with this object, and the folder with it, unless it holds
// something that must not be lost.
//
// Thread-safe after Start. Start and the destructor belong to the main thread (see ChildServer).

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "client/child_server.h"
#include "rpc/channel.h"

namespace lockstep {

struct EmbeddedOptions {
  // Where lockstep-coordinator, lockstep-worker and lockstep-trainer are.
  std::string program_folder;
  // Trainers that can run at once.
  uint32_t slots = 1;
  // What its folder may have to hold. Less free space is refused, for it would show when the training is done.
  uint64_t folder_bytes = 0;
  // Asked while starting: true gives up with Cancelled.
  std::function<bool()> interrupted = [] { return false; };
};

class EmbeddedCluster {
 public:
  // Returns once the coordinator serves; the worker attends soon after. Errors hold the last lines that the program wrote.
  static absl::StatusOr<std::unique_ptr<EmbeddedCluster>> Start(const EmbeddedOptions& options);
  ~EmbeddedCluster();

  const std::string& address() const { return address_; }
  ChannelOptions channel_options() const { return {token_, "", ""}; }
  const std::string& folder() const { return folder_; }

  // Calls `died` once, on another thread, if a program ends while it should not, with who, how, and its last lines.
  void OnDeath(std::function<void(const absl::Status&)> died);
  // `died` is not called after this.
  void StopWatching();

  // The programs end: asked first, killed after a while. Nothing runs any more when this returns.
  void Stop();
  // Ends them at once, without waiting.
  void Kill();
  // The folder stays when this object goes, all but the programs' own files if `only` (a path in it) is not empty.
  void KeepFolder(const std::string& only);

 private:
  EmbeddedCluster(std::string folder, std::string token) : folder_(std::move(folder)), token_(std::move(token)) {}

  absl::Status StartCoordinator(const EmbeddedOptions& options);
  absl::Status StartWorker(const EmbeddedOptions& options);
  absl::Status WaitUntilServing(const std::string& ready_file, const EmbeddedOptions& options);
  void WatchOver(const std::function<void(const absl::Status&)>& died);
  void RemoveFolder();

  const std::string folder_;
  const std::string token_;
  std::string address_;
  std::unique_ptr<ChildServer> coordinator_;
  std::unique_ptr<ChildServer> worker_;
  // Written to when the watching is to end.
  int stop_event_ = -1;
  std::thread watcher_;
  bool keep_ = false;
  std::string keep_only_;
};

}  // namespace lockstep
