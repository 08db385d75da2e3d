#include "worker/trainer_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "rpc/frame.h"

namespace lockstep {
namespace {

constexpr size_t kMostLineBytes = 8 << 10;
constexpr size_t kMostStatusBytes = 1 << 20;
// Of output, taken in at once: a trainer that writes without end must not keep the others waiting.
constexpr size_t kMostOutputBytes = 64 << 10;

// Appends what can be read without waiting, up to `limit` bytes. False at end-of-file or error.
bool ReadAvailable(int fd, size_t limit, std::string* into) {
  char buffer[16 << 10];
  size_t taken = 0;
  while (taken < limit) {
    const ssize_t count = read(fd, buffer, std::min(sizeof(buffer), limit - taken));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (count <= 0) return false;
    into->append(buffer, static_cast<size_t>(count));
    taken += static_cast<size_t>(count);
  }
  return true;
}

uint32_t FrameSize(const std::string& bytes) {
  uint32_t size = 0;
  for (size_t i = 0; i < 4; ++i) size |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  return size;
}

void RemoveFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
  if (error) LOG_WARNING("scratch=%s error=\"cannot remove: %s\"", folder, error.message());
}

}  // namespace

v1::TrainerStatus MergeStatus(const v1::TrainerStatus& older, const v1::TrainerStatus& newer) {
  v1::TrainerStatus merged = newer;
  merged.set_step(std::max(older.step(), newer.step()));
  merged.set_epoch(std::max(older.epoch(), newer.epoch()));
  merged.set_images(std::max(older.images(), newer.images()));
  merged.set_out_of_memory_retries(std::max(older.out_of_memory_retries(), newer.out_of_memory_retries()));
  merged.set_refused_allocations(std::max(older.refused_allocations(), newer.refused_allocations()));
  merged.set_all_reduce_bytes(std::max(older.all_reduce_bytes(), newer.all_reduce_bytes()));
  if (older.phase_seconds().total() > newer.phase_seconds().total()) *merged.mutable_phase_seconds() = older.phase_seconds();
  if (!newer.has_activity() && older.has_activity()) *merged.mutable_activity() = older.activity();
  if (newer.in_hand().empty()) merged.set_in_hand(older.in_hand());
  if (!newer.has_checkpoint() && older.has_checkpoint()) *merged.mutable_checkpoint() = older.checkpoint();
  if (!newer.has_memory() && older.has_memory()) *merged.mutable_memory() = older.memory();
  // A message without images tells of a phase, not of the training.
  if (newer.images() == 0) merged.set_loss(older.loss());
  return merged;
}

absl::StatusOr<std::unique_ptr<TrainerProcess>> TrainerProcess::Start(const std::string& program, const v1::TrainerStart& start) {
  RETURN_IF_ERROR(MakeDirectories(start.scratch()));
  absl::StatusOr<ChildProcess> child = SpawnTrainer(program, start.scratch());
  if (!child.ok()) {
    RemoveFolder(start.scratch());
    return child.status();
  }
  // From here on its destructor cleans up.
  std::unique_ptr<TrainerProcess> process(new TrainerProcess(*std::move(child), start));
  // An order names every member and artifact; the default of 208 KiB may be too little.
  const int buffer = 4 << 20;
  setsockopt(process->control(), SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer));
  // One that died already says why by its exit status and its output.
  if (const absl::Status written = WriteFrame(process->control(), start); !written.ok()) {
    process->Broken(absl::StrCat("it did not take its order: ", written.message()));
  }
  return process;
}

TrainerProcess::TrainerProcess(ChildProcess child, const v1::TrainerStart& start) : child_(std::move(child)), scratch_(start.scratch()) {
  report_.set_job_id(start.order().job_id());
  report_.set_generation(start.order().generation());
  report_.set_rank(start.order().rank());
  report_.set_role(start.order().role());
  report_.set_pid(child_.pid);
}

TrainerProcess::~TrainerProcess() {
  if (!ended()) {
    Signal(SIGKILL);
    waitpid(child_.pid, nullptr, 0);
  }
  RemoveFolder(scratch_);
}

void TrainerProcess::Broken(const std::string& reason) {
  report_.set_message(reason);
  child_.control.Reset();
  Signal(SIGKILL);
}

void TrainerProcess::TakeFrames() {
  while (frames_.size() >= 4) {
    const size_t size = FrameSize(frames_);
    if (size > kMostStatusBytes) return Broken(absl::StrCat("it sent a status of ", size, " bytes"));
    if (frames_.size() < 4 + size) return;
    v1::TrainerStatus status;
    if (!status.ParseFromArray(frames_.data() + 4, static_cast<int>(size))) return Broken("it sent bytes that are no status");
    frames_.erase(0, 4 + size);
    if (status.beat()) {
      *report_.mutable_status()->mutable_activity() = std::move(*status.mutable_activity());
      continue;
    }
    if (!status.message().empty()) report_.set_message(status.message());
    *report_.mutable_status() = MergeStatus(report_.status(), status);
  }
}

void TrainerProcess::ReadControl() {
  if (control() < 0) return;
  // Twice the largest frame bounds the buffer; a level-triggered poll brings us back for the rest.
  const bool open = ReadAvailable(control(), kMostStatusBytes, &frames_);
  TakeFrames();
  if (!open) child_.control.Reset();
}

std::string TrainerProcess::ReadOutput() {
  if (output() < 0) return "";
  if (!ReadAvailable(output(), kMostOutputBytes, &line_)) child_.output.Reset();
  const size_t end = line_.rfind('\n');
  std::string lines;
  if (end != std::string::npos) {
    lines = line_.substr(0, end + 1);
    line_.erase(0, end + 1);
  }
  if (line_.size() > kMostLineBytes) {
    absl::StrAppend(&lines, line_, "\n");
    line_.clear();
  }
  return lines;
}

std::string TrainerProcess::RestOfOutput() {
  std::string lines = ReadOutput();
  if (!line_.empty()) absl::StrAppend(&lines, std::exchange(line_, ""), "\n");
  return lines;
}

void TrainerProcess::KillAsSilent(absl::Duration silent) {
  report_.set_message(absl::StrCat("it gave no sign of life for ", absl::FormatDuration(absl::Trunc(silent, absl::Milliseconds(100)))));
  Signal(SIGKILL);
}

void TrainerProcess::Tell(const v1::TrainerOrder& order) {
  v1::TrainerCommand command;
  command.set_cancel(order.cancel());
  command.set_pause(order.pause());
  command.set_newest_generation(order.newest_generation());
  // One that is gone already is noticed by its pidfd.
  if (control() >= 0) WriteFrame(control(), command).IgnoreError();
}

void TrainerProcess::Signal(int signal) {
  if (!ended()) kill(-child_.pid, signal);
}

void TrainerProcess::Reap() {
  if (ended()) return;
  // Before the process is reaped, while its group cannot belong to anybody else.
  Signal(SIGKILL);
  siginfo_t info{};
  if (waitid(P_PIDFD, static_cast<id_t>(child_.pidfd.get()), &info, WEXITED) != 0) {
    LOG_ERROR("pid=%d error=\"cannot take its exit status: %s\"", child_.pid, std::strerror(errno));
  }
  ReadControl();
  if (info.si_code == CLD_EXITED) {
    report_.set_exit_code(info.si_status);
  } else {
    report_.set_signal(info.si_status);
  }
  report_.set_ended(true);
  child_.control.Reset();
  child_.pidfd.Reset();
  RemoveFolder(scratch_);
}

}  // namespace lockstep
