#pragma once
// One trainer process, from its start to its end: the control socket, what it writes to standard error, and its exit.
//
// Belongs to one thread, the one that made it and outlives it (see worker/spawn.h); reads do not wait. Destroying it kills the
// process with its process group, reaps it, and removes its scratch folder.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/cluster.pb.h"
#include "worker/spawn.h"

namespace lockstep {

// `newer` over `older`: what only counts up never goes down, and what a short message ("saving") leaves out stays what it was.
v1::TrainerStatus MergeStatus(const v1::TrainerStatus& older, const v1::TrainerStatus& newer);

class TrainerProcess {
 public:
  // Makes start.scratch, starts `program` in it, and hands it `start` over the control socket.
  static absl::StatusOr<std::unique_ptr<TrainerProcess>> Start(const std::string& program, const v1::TrainerStart& start);
  ~TrainerProcess();
  TrainerProcess(const TrainerProcess&) = delete;
  TrainerProcess& operator=(const TrainerProcess&) = delete;

  // Descriptors to poll for reading. The last two are -1 after their end-of-file.
  int pidfd() const { return child_.pidfd.get(); }
  int control() const { return child_.control.get(); }
  int output() const { return child_.output.get(); }

  // Takes in what is there to read.
  void ReadControl();
  // Returns the whole lines that are complete by now; "" if none. Lines over 8 KiB are broken in two.
  std::string ReadOutput();
  // What is left of the output after the end: a last line without newline gets one.
  std::string RestOfOutput();

  // What has changed of its order since it was started: see v1::TrainerCommand.
  void Tell(const v1::TrainerOrder& order);
  // When it last gave a sign of life, as its owner says.
  void Heard(absl::Time when) { last_heard_ = when; }
  absl::Time last_heard() const { return last_heard_; }
  // With last words that say so.
  void KillAsSilent(absl::Duration silent);
  // To the whole process group.
  void Signal(int signal);
  // Call when pidfd() is readable: kills what is left of the group, takes the exit status, reads the last words.
  void Reap();

  bool ended() const { return report_.ended(); }
  // Without `status` where nothing came yet. `message`: its last words, or what broke its control socket.
  const v1::TrainerReport& report() const { return report_; }

 private:
  TrainerProcess(ChildProcess child, const v1::TrainerStart& start);
  void Broken(const std::string& reason);
  void TakeFrames();

  ChildProcess child_;
  const std::string scratch_;
  absl::Time last_heard_ = absl::InfinitePast();
  v1::TrainerReport report_;
  std::string frames_;  // bytes of the control socket that are no whole frame yet
  std::string line_;    // of the output, without its newline yet
};

}  // namespace lockstep
