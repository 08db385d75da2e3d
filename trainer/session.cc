#include "trainer/session.h"

#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "rpc/frame.h"
#include "trainer/activity.h"
#include "trainer/checkpoint_folder.h"
#include "trainer/link.h"
#include "trainer/order.h"
#include "trainer/planner.h"
#include "trainer/training.h"

namespace lockstep {
namespace {

// A third of the shortest silence for which a worker can be told to kill (lockstep-coordinator --silence-ms).
constexpr absl::Duration kBeat = absl::Seconds(1);

// The control socket after the start: commands in, status out. End-of-file means that the worker is gone, and we go with it.
class Control {
 public:
  explicit Control(int fd) : fd_(fd) {
    std::thread([this] { ReadCommands(); }).detach();
    std::thread([this] { Beat(); }).detach();
  }

  Activity& activity() { return activity_; }
  bool cancel() const { return cancel_; }
  bool pause() const { return pause_; }
  uint64_t newest_generation() const { return newest_generation_; }

  void Send(const v1::TrainerStatus& status) {
    absl::MutexLock lock(&mutex_);
    // A worker that is gone is noticed by the reader.
    WriteFrame(fd_, status).IgnoreError();
  }

 private:
  void ReadCommands() {
    for (;;) {
      const auto command = ReadFrame<v1::TrainerCommand>(fd_);
      if (!command.ok() || !command->has_value()) _exit(1);
      if ((*command)->cancel()) cancel_ = true;
      pause_ = (*command)->pause();
      newest_generation_ = (*command)->newest_generation();
    }
  }
  // However long a step takes: only a process that is stopped, or starved, does not.
  void Beat() {
    for (;; absl::SleepFor(kBeat)) {
      const Activity::View view = activity_.Take();
      v1::TrainerStatus beat;
      beat.set_beat(true);
      beat.mutable_activity()->set_phase(view.phase);
      beat.mutable_activity()->set_step(view.step);
      beat.mutable_activity()->set_phase_seconds(view.phase_seconds);
      beat.mutable_activity()->set_busy_seconds(view.busy_seconds);
      for (const std::string& recent : view.recent) beat.mutable_activity()->add_recent(recent);
      Send(beat);
    }
  }

  const int fd_;
  Activity activity_;
  std::atomic<bool> cancel_ = false;
  std::atomic<bool> pause_ = false;
  std::atomic<uint64_t> newest_generation_ = 0;
  absl::Mutex mutex_;
};

class SessionReporter final : public Reporter {
 public:
  SessionReporter(Control& control, Link& link) : control_(control), link_(link) {}

  void Step(StepFigures figures) override { link_.QueueStep(ToProto(figures)); }
  void Epoch(EpochFigures figures) override { link_.QueueEpoch(ToProto(figures)); }
  void Pass(PassFigures figures) override { link_.QueuePass(ToProto(figures)); }
  void Note(std::string text) override {
    LOG_INFO("note=\"%s\"", text);
    link_.QueueNote(std::move(text));
  }
  void Status(StatusFigures figures) override { control_.Send(ToProto(figures)); }
  bool CancelWanted() const override { return control_.cancel(); }
  bool PauseWanted() const override { return control_.pause(); }
  uint64_t DurableStep() const override { return link_.durable_step(); }
  void Forget(uint64_t durable_step) override { link_.Forget(durable_step); }
  void Agreed(uint64_t step) override { link_.Agreed(step); }
  std::string Records() const override { return link_.Records(); }
  void TakeRecords(const std::string& records) override { link_.TakeRecords(records); }
  uint64_t NewestGeneration() const override { return control_.newest_generation(); }
  void Enter(const char* phase, uint64_t step) override { control_.activity().Enter(phase, step); }
  void InHand(std::string text) override {
    v1::TrainerStatus status;
    status.set_phase("training");
    status.set_in_hand(std::move(text));
    control_.Send(status);
  }

 private:
  Control& control_;
  Link& link_;
};

v1::EndReport ToEndReport(const RunSpec& spec, const RunOutcome& outcome) {
  v1::EndReport report;
  report.set_job_id(spec.job_id);
  report.set_reason(outcome.reason);
  *report.mutable_result() = ToProto(outcome.result);
  switch (outcome.ending) {
    case Ending::kDone: report.set_state(v1::DONE); break;
    case Ending::kCancelled: report.set_state(v1::CANCELLED); break;
    case Ending::kPaused: report.set_state(v1::PAUSED); break;
    case Ending::kBadInput:
      report.set_state(v1::FAILED);
      report.set_failure(v1::BAD_INPUT);
      break;
    case Ending::kOutOfMemory:
      report.set_state(v1::FAILED);
      report.set_failure(v1::OUT_OF_MEMORY);
      break;
    case Ending::kFailed:
      report.set_state(v1::FAILED);
      report.set_failure(v1::TRAINING_FAILED);
      break;
  }
  return report;
}

RunFiles FilesOf(const RunSpec& spec) {
  RunFiles files;
  files.model = absl::StrCat(spec.scratch, "/model.keras");
  files.train_index = absl::StrCat(spec.scratch, "/train.index");
  if (!spec.validation_folder.empty()) files.validation_index = absl::StrCat(spec.scratch, "/validation.index");
  return files;
}

absl::Status Plan(const v1::TrainerStart& start, const RunSpec& spec, Link& link, Control& control) {
  const RunFiles files = FilesOf(spec);
  v1::TrainerStatus status;
  status.set_phase("planning");
  control.Send(status);
  RETURN_IF_ERROR(link.Fetch("model.keras", files.model));
  const PlanOutcome outcome = PlanJob(spec, files);
  if (outcome.errors.empty()) {
    RETURN_IF_ERROR(link.Store("train.index", files.train_index));
    if (!files.validation_index.empty()) RETURN_IF_ERROR(link.Store("validation.index", files.validation_index));
  }
  return link.ReportPlan(ToProto(outcome, start.order().job(), spec.job_id));
}

absl::Status Conclude(const RunSpec& spec, const RunOutcome& outcome, Link& link) {
  for (const std::string& artifact : outcome.artifacts) {
    RETURN_IF_ERROR(link.Store(artifact, absl::StrCat(spec.scratch, "/", artifact)));
  }
  return link.ReportEnd(ToEndReport(spec, outcome));
}

CheckpointStorage ArtifactStorage(Link& link) {
  return {[&link](const std::string& name, const std::string& path) { return link.Store(name, path); },
          [&link](const std::string& name, const std::string& path) { return link.Fetch(name, path); }};
}

absl::Status Train(const RunSpec& spec, Link& link, Control& control) {
  const RunFiles files = FilesOf(spec);
  v1::TrainerStatus status;
  status.set_phase("loading");
  control.Send(status);
  RETURN_IF_ERROR(link.Fetch("model.keras", files.model));
  RETURN_IF_ERROR(link.Fetch("train.index", files.train_index));
  if (!files.validation_index.empty()) RETURN_IF_ERROR(link.Fetch("validation.index", files.validation_index));
  LOCKSTEP_FAILPOINT("trainer.loaded");
  SessionReporter reporter(control, link);
  const Rendezvous rendezvous = [&link](const allreduce::Endpoint& mine, const std::map<std::string, std::string>& environment) {
    return link.Rendezvous(mine, environment);
  };
  const Regroup regroup = [&link](const Asking& asking) -> absl::StatusOr<Placement> {
    v1::RegroupRequest request;
    request.set_finished(asking.finished);
    request.set_reason(asking.reason);
    request.mutable_silent_ranks()->Assign(asking.silent_ranks.begin(), asking.silent_ranks.end());
    ASSIGN_OR_RETURN(const v1::TrainerOrder order, link.Regroup(std::move(request)));
    return ToPlacement(order);
  };
  const CheckpointStorage storage =
      spec.checkpoint_folder.empty() ? ArtifactStorage(link) : FolderStorage(spec.checkpoint_folder, spec.job_id, link);
  const absl::StatusOr<RunOutcome> outcome = RunJob(spec, files, rendezvous, regroup, storage, reporter);
  if (absl::IsFailedPrecondition(outcome.status())) {
    LOG_INFO("job=%s event=left reason=\"%s\"", spec.job_id, outcome.status().message());
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(outcome.status());
  for (;;) {
    if (link.rank() != 0) return absl::OkStatus();
    absl::Status concluded = Conclude(spec, *outcome, link);
    if (!absl::IsFailedPrecondition(concluded)) return concluded;
    // Another replica died though all steps are done: the result is that of the generation which we are of now.
    v1::RegroupRequest finished;
    finished.set_finished(true);
    if (!link.Regroup(std::move(finished)).ok()) return absl::OkStatus();
  }
}

}  // namespace

int RunSession(int control_fd) {
  const auto start = ReadFrame<v1::TrainerStart>(control_fd);
  if (!start.ok() || !start->has_value()) {
    LOG_ERROR("error=\"no order came over the control socket: %s\"", start.ok() ? "end of file" : start.status().message());
    return 1;
  }
  const v1::TrainerStart& order = **start;
  const RunSpec spec = ToRunSpec(order);
  // Never destroyed: its reader waits for the worker until the process ends.
  Control& control = *new Control(control_fd);
  absl::Status ended;
  {
    Link link(order);
    ended = order.order().role() == v1::PLAN ? Plan(order, spec, link, control) : Train(spec, link, control);
  }
  v1::TrainerStatus last;
  last.set_phase("ended");
  if (!ended.ok()) {
    last.set_message(std::string(ended.message()));
    LOG_ERROR("job=%s generation=%d rank=%d error=\"%s\"", spec.job_id, spec.generation, spec.rank, ended.ToString());
  }
  control.Send(last);
  return ended.ok() ? 0 : 1;
}

}  // namespace lockstep
