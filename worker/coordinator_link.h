#pragma once
// The worker's line to the coordinator: one Attend stream, opened again whenever it breaks, as soon as the channel is connected (which
// backs off, rpc/channel.h). Reports go out at every heartbeat and at once when the outbox is urgent, one at a time: the next waits for the
// last one's acknowledgement. Orders go to the supervisor as they come.
//
// Thread-safe. While the coordinator is away nothing is stopped: the supervisor keeps to the last orders.

#include <grpcpp/client_context.h>
#include <grpcpp/support/sync_stream.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/cluster.grpc.pb.h"
#include "rpc/channel.h"
#include "worker/bell.h"
#include "worker/outbox.h"
#include "worker/supervisor.h"

namespace lockstep {

struct CoordinatorLinkOptions {
  std::string coordinator;
  ChannelOptions channel;
  // Every field of a report that does not change.
  v1::WorkerReport identity;
  // A report that is not acknowledged for so long means that the stream is dead.
  absl::Duration answer_timeout = absl::Seconds(10);
  // How long it is tried again after FailedPrecondition: at the first meeting, when the coordinator may not yet have noticed that the
  // last worker of this id is gone; and later, when it may take our own last stream for alive until its lease ends.
  absl::Duration first_refusal_timeout = absl::Seconds(3);
  absl::Duration refusal_timeout = absl::Seconds(30);
};

class CoordinatorLink {
 public:
  // `on_connected` is called once, after the first orders; `on_refused` once, if the coordinator will not have this worker
  // (wrong token, another version): there is no trying again after it. Both on threads of this class.
  CoordinatorLink(CoordinatorLinkOptions options, Bell* bell, Outbox* outbox, Supervisor* supervisor, std::function<void()> on_connected,
                  std::function<void(absl::Status)> on_refused);
  // Leaves without a word, if Leave was not called.
  ~CoordinatorLink();

  // Says goodbye if the coordinator is there, and ends. Waits at most a few seconds.
  void Leave();

  bool connected() const;

 private:
  using Stream = grpc::ClientReaderWriter<v1::WorkerReport, v1::WorkerOrders>;

  void Run();
  void End(bool goodbye);
  absl::Status AttendOnce();
  // Returns when it is worth to try again.
  void AwaitChannel();
  void ReadOrders(Stream* stream);
  void SendReports(Stream* stream);
  void SayGoodbye(Stream* stream);
  bool SendReport(Stream* stream, bool leaving);
  // False: the stream is broken, or no acknowledgement came in time.
  bool AwaitAcknowledgement(absl::Duration timeout);
  void AwaitNextReport();
  bool AwaitBroken(absl::Duration timeout);
  bool IsRefusal(const absl::Status& status);
  bool leaving() const;

  const CoordinatorLinkOptions options_;
  Bell* const bell_;
  Outbox* const outbox_;
  Supervisor* const supervisor_;
  const std::function<void()> on_connected_;
  const std::function<void(absl::Status)> on_refused_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Cluster::Stub> stub_;

  // Of the attending thread alone.
  uint64_t sequence_ = 0;
  absl::Time refused_since_ = absl::InfiniteFuture();

  mutable absl::Mutex mutex_;
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;  // of the stream that is open
  uint64_t acknowledged_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Duration heartbeat_ ABSL_GUARDED_BY(mutex_) = absl::Seconds(1);
  bool broken_ ABSL_GUARDED_BY(mutex_) = true;
  bool answered_ ABSL_GUARDED_BY(mutex_) = false;  // the stream that is open
  bool ever_connected_ ABSL_GUARDED_BY(mutex_) = false;
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;
  bool goodbye_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread thread_;
};

}  // namespace lockstep
