#include "client/embedded_cluster.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "client/size.h"

namespace lockstep {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(30);
constexpr absl::Duration kLook = absl::Milliseconds(5);
constexpr absl::Duration kStopGrace = absl::Seconds(15);
constexpr absl::Duration kOrphanGrace = absl::Seconds(3);
constexpr size_t kLogLines = 12;

std::string MakeToken() {
  std::random_device random;
  std::string token;
  for (int i = 0; i < 8; ++i) absl::StrAppendFormat(&token, "%08x", random());
  return token;
}

absl::StatusOr<std::string> MakeTemporaryFolder() {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
  if (error) return ErrnoStatus(error.value(), "no folder for temporary files (TMPDIR)", parent.string());
  std::string folder = (parent / "lockstep-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) return ErrnoStatus(errno, "cannot make a temporary folder in", parent.string());
  return folder;
}

absl::Status CheckRoom(const std::string& folder, uint64_t bytes) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error || space.available >= bytes) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat("temporary files may need ", FormatSize(bytes), ", and ", folder, " has only ",
                                         FormatSize(space.available), " left; name a roomier folder in TMPDIR"));
}

absl::Status Ended(const char* program, ChildServer& child) {
  const std::string lines = LastLines(child.log_path(), kLogLines);
  return absl::InternalError(
      absl::StrCat(program, " ended by itself (", child.ending(), ")", lines.empty() ? "" : "; its last lines:\n", lines));
}

}  // namespace

absl::StatusOr<std::unique_ptr<EmbeddedCluster>> EmbeddedCluster::Start(const EmbeddedOptions& options) {
  for (const char* program : {"lockstep-coordinator", "lockstep-worker", "lockstep-trainer"}) {
    const std::string path = absl::StrCat(options.program_folder, "/", program);
    if (access(path.c_str(), X_OK) != 0) return ErrnoStatus(errno, "cannot run", path);
  }
  ASSIGN_OR_RETURN(std::string folder, MakeTemporaryFolder());
  std::unique_ptr<EmbeddedCluster> cluster(new EmbeddedCluster(std::move(folder), MakeToken()));
  RETURN_IF_ERROR(CheckRoom(cluster->folder_, options.folder_bytes));
  AdoptOrphans();
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(cluster->folder_, "/token"), cluster->token_));
  RETURN_IF_ERROR(cluster->StartCoordinator(options));
  RETURN_IF_ERROR(cluster->StartWorker(options));
  return cluster;
}

absl::Status EmbeddedCluster::StartCoordinator(const EmbeddedOptions& options) {
  const std::string ready_file = absl::StrCat(folder_, "/coordinator.ready");
  ASSIGN_OR_RETURN(coordinator_, ChildServer::Start(absl::StrCat(options.program_folder, "/lockstep-coordinator"),
                                                    {"--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--state-dir",
                                                     absl::StrCat(folder_, "/coordinator"), "--token-file", absl::StrCat(folder_, "/token"),
                                                     "--ready-file", ready_file, "--die-with-parent"},
                                                    absl::StrCat(folder_, "/coordinator.log")));
  return WaitUntilServing(ready_file, options);
}

absl::Status EmbeddedCluster::WaitUntilServing(const std::string& ready_file, const EmbeddedOptions& options) {
  const absl::Time deadline = absl::Now() + kStartTimeout;
  for (;;) {
    if (const auto text = ReadFile(ready_file); text.ok()) {
      const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
      if (json.is_object() && json.contains("grpc") && json["grpc"].is_string()) {
        address_ = json["grpc"].get<std::string>();
        return absl::OkStatus();
      }
    }
    if (options.interrupted()) return absl::CancelledError("interrupted");
    if (coordinator_->WaitForEnd(kLook)) return Ended("the coordinator", *coordinator_);
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("the coordinator does not serve after ", absl::FormatDuration(kStartTimeout),
                                                      "; its last lines:\n", LastLines(coordinator_->log_path(), kLogLines)));
    }
  }
}

absl::Status EmbeddedCluster::StartWorker(const EmbeddedOptions& options) {
  ASSIGN_OR_RETURN(
      worker_,
      ChildServer::Start(absl::StrCat(options.program_folder, "/lockstep-worker"),
                         {"--coordinator", address_, "--token-file", absl::StrCat(folder_, "/token"), "--state-dir",
                          absl::StrCat(folder_, "/worker"), "--address", "127.0.0.1", "--slots", absl::StrCat(options.slots), "--trainer",
                          absl::StrCat(options.program_folder, "/lockstep-trainer"), "--metrics", "127.0.0.1:0", "--die-with-parent"},
                         absl::StrCat(folder_, "/worker.log")));
  return absl::OkStatus();
}

EmbeddedCluster::~EmbeddedCluster() {
  Stop();
  RemoveFolder();
  if (stop_event_ >= 0) close(stop_event_);
}

void EmbeddedCluster::OnDeath(std::function<void(const absl::Status&)> died) {
  stop_event_ = eventfd(0, EFD_CLOEXEC);
  watcher_ = std::thread([this, died = std::move(died)] { WatchOver(died); });
}

void EmbeddedCluster::WatchOver(const std::function<void(const absl::Status&)>& died) {
  std::array<pollfd, 3> wanted = {{{stop_event_, POLLIN, 0}, {coordinator_->pidfd(), POLLIN, 0}, {worker_->pidfd(), POLLIN, 0}}};
  while (poll(wanted.data(), wanted.size(), -1) < 0 && errno == EINTR) {
  }
  if (wanted[0].revents != 0) return;
  died(wanted[1].revents != 0 ? Ended("the coordinator", *coordinator_) : Ended("the worker", *worker_));
}

void EmbeddedCluster::StopWatching() {
  if (!watcher_.joinable()) return;
  const uint64_t one = 1;
  // A write to a fresh eventfd cannot fail.
  [[maybe_unused]] const ssize_t written = write(stop_event_, &one, sizeof(one));
  watcher_.join();
}

void EmbeddedCluster::Stop() {
  StopWatching();
  // The worker first: it tells the coordinator that it leaves.
  if (worker_ != nullptr) worker_->Stop(kStopGrace);
  if (coordinator_ != nullptr) coordinator_->Stop(kStopGrace);
  ReapOrphans(kOrphanGrace);
}

void EmbeddedCluster::Kill() {
  if (worker_ != nullptr) worker_->Kill();
  if (coordinator_ != nullptr) coordinator_->Kill();
}

void EmbeddedCluster::KeepFolder(const std::string& only) {
  keep_ = true;
  keep_only_ = only;
}

void EmbeddedCluster::RemoveFolder() {
  std::error_code error;
  if (!keep_) {
    std::filesystem::remove_all(folder_, error);
  } else if (!keep_only_.empty()) {
    std::vector<std::filesystem::path> others;
    for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
      if (entry.path() != keep_only_) others.push_back(entry.path());
    }
    for (const auto& other : others) std::filesystem::remove_all(other, error);
  }
}

}  // namespace lockstep
