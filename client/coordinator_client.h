#pragma once
// The coordinator's service for clients, as calls. Thread-safe.
//
// Errors say which coordinator, and for those that the user can mend, how. Nothing is retried here but by Watch's caller.

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/lockstep.grpc.pb.h"
#include "rpc/channel.h"

namespace lockstep {

class CoordinatorClient {
 public:
  CoordinatorClient(const std::string& address, const ChannelOptions& options);

  // Sends the job and the file's bytes; the job is durable once this is OK. Its id comes back. Tries again for about three seconds
  // where the connection breaks: that makes one job, whichever of the answers were lost.
  absl::StatusOr<std::string> Submit(const v1::Job& job, const std::string& model_path);
  absl::StatusOr<v1::JobStatus> Describe(const std::string& job_id);
  // Newest first. `limit` 0: as many as the coordinator gives.
  absl::StatusOr<v1::ListResponse> List(uint32_t limit);
  absl::StatusOr<v1::JobStatus> Cancel(const std::string& job_id);
  // Every record of a step or an epoch, in order, as it comes.
  absl::Status Ledger(const std::string& job_id, uint32_t epoch, absl::FunctionRef<absl::Status(const v1::Event&)> take);
  absl::StatusOr<v1::JobStatus> Pause(const std::string& job_id);
  absl::StatusOr<v1::JobStatus> Resume(const std::string& job_id);
  absl::StatusOr<v1::JobStatus> Scale(const std::string& job_id, uint32_t min, uint32_t max);
  absl::StatusOr<v1::ListWorkersResponse> ListWorkers();
  absl::StatusOr<v1::VersionResponse> Version();
  // `text` gets whole lines.
  absl::Status Logs(const std::string& job_id, bool follow, absl::FunctionRef<void(const std::string&)> text);
  // After OK the file at `path` is whole; after an error it is what it was. DataLoss: the checksum is wrong. Otherwise
  // it is the disk (ErrnoStatus).
  absl::Status Download(const std::string& job_id, const std::string& artifact, const std::string& path);
  // One stream of events after `after_sequence`. Ends with the stream's end, or with `event`'s error.
  absl::Status Watch(const std::string& job_id, uint64_t after_sequence, absl::FunctionRef<absl::Status(const v1::Event&)> event);

  // Ends every call under way and to come with `reason`, an error. The first reason stays.
  void Stop(const absl::Status& reason);
  // Waits for `timeout`, or until Stop: its reason, else OK.
  absl::Status Sleep(absl::Duration timeout);

  const std::string& address() const { return address_; }

 private:
  // A context that Stop reaches, for as long as this lives.
  class Call;

  absl::StatusOr<std::string> SubmitOnce(const std::string& request_id, const v1::Job& job, const std::string& model_path);
  absl::Status Finish(const grpc::Status& status);

  const std::string address_;
  const std::unique_ptr<v1::Lockstep::Stub> stub_;
  absl::Mutex mutex_;
  absl::Status stopped_ ABSL_GUARDED_BY(mutex_);
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace lockstep
