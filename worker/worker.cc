#include "worker/worker.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "base/file.h"
#include "base/file_descriptor.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "rpc/http_server.h"
#include "worker/bell.h"
#include "worker/coordinator_link.h"
#include "worker/machine.h"
#include "worker/metrics.h"
#include "worker/outbox.h"
#include "worker/state_folder.h"
#include "worker/supervisor.h"

namespace lockstep {
namespace {

// Why the main thread stops waiting: a signal, or a status that another thread left here.
class Ending {
 public:
  // Blocks the signals in this thread, and so in all that it makes.
  Ending() : event_(eventfd(0, EFD_CLOEXEC)) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
    signals_ = FileDescriptor(signalfd(-1, &signals, SFD_CLOEXEC));
  }

  void Fail(const absl::Status& status) {
    {
      absl::MutexLock lock(&mutex_);
      status_.Update(status);
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof(one));
  }

  // OK: a signal asks to drain.
  absl::Status Await() {
    pollfd descriptors[] = {{signals_.get(), POLLIN, 0}, {event_.get(), POLLIN, 0}};
    while (poll(descriptors, 2, -1) <= 0) {
    }
    absl::MutexLock lock(&mutex_);
    return status_;
  }

 private:
  FileDescriptor signals_;
  const FileDescriptor event_;
  absl::Mutex mutex_;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

v1::WorkerReport IdentityOf(const WorkerOptions& options, const std::string& worker_id) {
  v1::WorkerReport identity;
  identity.set_worker_id(worker_id);
  identity.set_version(LOCKSTEP_VERSION);
  identity.set_host(HostName());
  identity.set_cores(options.cores);
  identity.set_memory_bytes(options.memory_bytes);
  identity.set_slots(options.slots);
  identity.set_address(options.address);
  return identity;
}

SupervisorOptions ToSupervisorOptions(const WorkerOptions& options, const ChannelOptions& channel, const std::string& scratch) {
  SupervisorOptions result;
  result.trainer = options.trainer;
  result.scratch = scratch;
  result.start.set_coordinator(options.client.coordinator);
  result.start.set_token(channel.token);
  result.start.set_ca_certificate(channel.ca_certificate);
  result.start.set_server_name(channel.server_name);
  result.start.set_address(options.address);
  result.stopping.grace = absl::Seconds(options.stop_grace_seconds);
  result.stopping.patience = std::min(result.stopping.patience, result.stopping.grace);
  return result;
}

void WriteReadyFile(const std::string& path, const std::string& worker_id, const std::string& metrics, Ending* ending) {
  if (path.empty()) return;
  const nlohmann::json ready = {{"worker_id", worker_id}, {"metrics", metrics}, {"pid", getpid()}};
  if (const absl::Status written = WriteFileAtomically(path, ready.dump() + "\n"); !written.ok()) ending->Fail(written);
}

// Everything that can fail before the worker is one.
struct Beginning {
  ChannelOptions channel;
  std::unique_ptr<HttpServer> metrics;
  std::unique_ptr<StateFolder> state;
};

absl::StatusOr<Beginning> Begin(WorkerOptions* options) {
  Beginning beginning;
  RETURN_IF_ERROR(ResolveDefaults(options));
  ASSIGN_OR_RETURN(beginning.channel, ReadChannelOptions(options->client));
  ASSIGN_OR_RETURN(beginning.state, StateFolder::Open(options->state_folder));
  ASSIGN_OR_RETURN(beginning.metrics, HttpServer::Bind("--metrics", options->metrics));
  return beginning;
}

}  // namespace

int RunWorker(WorkerOptions options) {
  Ending ending;
  absl::StatusOr<Beginning> beginning = Begin(&options);
  if (!beginning.ok()) {
    LOG_ERROR("error=\"%s\"", beginning.status().message());
    return kExitRefused;
  }
  const StateFolder& state = *beginning->state;
  HttpServer& metrics = *beginning->metrics;
  LOG_INFO("worker=%s coordinator=%s slots=%d cores=%d memory_bytes=%d address=%s metrics=%s version=%s", state.worker_id(),
           options.client.coordinator, options.slots, options.cores, options.memory_bytes, options.address, metrics.address(),
           LOCKSTEP_VERSION);

  Bell bell;
  Outbox outbox(&bell);
  Supervisor supervisor(ToSupervisorOptions(options, beginning->channel, state.scratch()), &outbox);
  CoordinatorLinkOptions link_options;
  link_options.coordinator = options.client.coordinator;
  link_options.channel = beginning->channel;
  link_options.identity = IdentityOf(options, state.worker_id());
  CoordinatorLink link(
      std::move(link_options), &bell, &outbox, &supervisor,
      [&] { WriteReadyFile(options.ready_file, state.worker_id(), metrics.address(), &ending); },
      [&ending](const absl::Status& refusal) { ending.Fail(Annotate(refusal, "the coordinator refuses this worker")); });
  const auto page = [&]() -> HttpServer::Answer {
    return {200, "text/plain; version=0.0.4; charset=utf-8",
            MetricsText({state.worker_id(), outbox.Running(), supervisor.counts(), link.connected(), ResidentBytes()})};
  };
  if (const absl::Status served = metrics.Serve({{"/metrics", page}}); !served.ok()) ending.Fail(served);

  const absl::Status ended = ending.Await();
  if (!ended.ok()) LOG_ERROR("error=\"%s\"", ended.message());
  LOG_INFO("worker=%s state=draining", state.worker_id());
  const absl::Status drained = supervisor.Drain();
  if (!drained.ok()) LOG_ERROR("error=\"%s\"", drained.message());
  link.Leave();
  // Nobody may ask the parts that end before the server.
  beginning->metrics.reset();
  if (!options.ready_file.empty()) unlink(options.ready_file.c_str());
  LOG_INFO("worker=%s state=ended", state.worker_id());
  if (!ended.ok()) return kExitRefused;
  return drained.ok() ? kExitDrained : kExitFailed;
}

}  // namespace lockstep
