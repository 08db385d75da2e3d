#include "client/coordinator_client.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "rpc/file_stream.h"
#include "rpc/status.h"

namespace lockstep {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(30);
// Of a submission: with pauses of 0.1 s, doubled each time, about three seconds.
constexpr int kSubmitAttempts = 6;
constexpr absl::Duration kFirstPause = absl::Milliseconds(100);

// Nobody else's.
std::string NewRequestId() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) absl::StrAppend(&id, absl::Hex(random(), absl::kZeroPad8));
  return id;
}

}  // namespace

class CoordinatorClient::Call {
 public:
  explicit Call(CoordinatorClient& client) : client_(client) {
    absl::MutexLock lock(&client_.mutex_);
    client_.calls_.insert(&context_);
    if (!client_.stopped_.ok()) context_.TryCancel();
  }
  ~Call() {
    absl::MutexLock lock(&client_.mutex_);
    client_.calls_.erase(&context_);
  }
  grpc::ClientContext* context() { return &context_; }

 private:
  CoordinatorClient& client_;
  grpc::ClientContext context_;
};

CoordinatorClient::CoordinatorClient(const std::string& address, const ChannelOptions& options)
    : address_(address), stub_(v1::Lockstep::NewStub(MakeChannel(address, options))) {}

absl::Status CoordinatorClient::Finish(const grpc::Status& grpc_status) {
  const absl::Status status = FromGrpcStatus(grpc_status);
  {
    absl::MutexLock lock(&mutex_);
    if (!status.ok() && !stopped_.ok()) return stopped_;
  }
  // Cancelled, though not by us: by a coordinator that is ending.
  if (absl::IsUnavailable(status) || absl::IsCancelled(status)) {
    return absl::UnavailableError(absl::StrCat("cannot reach the coordinator at ", address_, ": ", status.message()));
  }
  if (absl::IsUnauthenticated(status)) {
    return absl::UnauthenticatedError(
        absl::StrCat("the coordinator at ", address_, " refuses the token (--token-file, or LOCKSTEP_TOKEN): ", status.message()));
  }
  return status;
}

absl::StatusOr<std::string> CoordinatorClient::Submit(const v1::Job& job, const std::string& model_path) {
  const std::string request_id = NewRequestId();
  absl::Duration pause = kFirstPause;
  for (int attempt = 1;; ++attempt) {
    absl::StatusOr<std::string> job_id = SubmitOnce(request_id, job, model_path);
    if (job_id.ok() || !IsRetryable(job_id.status()) || attempt == kSubmitAttempts) return job_id;
    RETURN_IF_ERROR(Sleep(pause));
    pause *= 2;
  }
}

absl::StatusOr<std::string> CoordinatorClient::SubmitOnce(const std::string& request_id, const v1::Job& job,
                                                          const std::string& model_path) {
  Call call(*this);
  v1::SubmitResponse response;
  const auto stream = stub_->Submit(call.context(), &response);
  v1::SubmitRequest request;
  *request.mutable_job() = job;
  request.set_request_id(request_id);
  absl::Status sent;
  if (stream->Write(request)) {
    sent = SendFile(model_path, [&stream](const v1::Chunk& chunk) {
      v1::SubmitRequest part;
      *part.mutable_model() = chunk;
      return stream->Write(part);
    });
  }
  // A file that cannot be read ends the call from here; a stream that broke has its own, better reason.
  const bool broken_here = !sent.ok() && !absl::IsUnavailable(sent);
  if (broken_here) call.context()->TryCancel();
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  if (broken_here) return sent;
  RETURN_IF_ERROR(Finish(status));
  return response.job_id();
}

absl::StatusOr<v1::JobStatus> CoordinatorClient::Describe(const std::string& job_id) {
  Call call(*this);
  SetDeadline(call.context(), kCallTimeout);
  v1::DescribeRequest request;
  request.set_job_id(job_id);
  v1::JobStatus response;
  RETURN_IF_ERROR(Finish(stub_->Describe(call.context(), request, &response)));
  return response;
}

absl::StatusOr<v1::ListResponse> CoordinatorClient::List(uint32_t limit) {
  Call call(*this);
  SetDeadline(call.context(), kCallTimeout);
  v1::ListRequest request;
  request.set_limit(limit);
  v1::ListResponse response;
  RETURN_IF_ERROR(Finish(stub_->List(call.context(), request, &response)));
  return response;
}

absl::StatusOr<v1::JobStatus> CoordinatorClient::Cancel(const std::string& job_id) {
  Call call(*this);
  SetDeadline(call.context(), kCallTimeout);
  v1::CancelRequest request;
  request.set_job_id(job_id);
  v1::JobStatus response;
  RETURN_IF_ERROR(Finish(stub_->Cancel(call.context(), request, &response)));
  return response;
}

absl::Status CoordinatorClient::Ledger(const std::string& job_id, uint32_t epoch, absl::FunctionRef<absl::Status(const v1::Event&)> take) {
  Call call(*this);
  v1::LedgerRequest request;
  request.set_job_id(job_id);
  request.set_epoch(epoch);
  const auto stream = stub_->Ledger(call.context(), request);
  v1::Event event;
  absl::Status taken;
  while (taken.ok() && stream->Read(&event)) taken = take(event);
  if (!taken.ok()) call.context()->TryCancel();
  const absl::Status finished = Finish(stream->Finish());
  return taken.ok() ? finished : taken;
}

absl::StatusOr<v1::JobStatus> CoordinatorClient::Pause(const std::string& job_id) {
  Call call(*this);
  SetDeadline(call.context(), kCallTimeout);
  v1::PauseRequest request;
  request.set_job_id(job_id);
  v1::JobStatus response;
  RETURN_IF_ERROR(Finish(stub_->Pause(call.context(), request, &response)));
  return response;
}

absl::StatusOr<v1::JobStatus> CoordinatorClient::Resume(const std::string& job_id) {
  Call call(*this);
  SetDeadline(call.context(), kCallTimeout);
  v1::ResumeRequest request;
  request.set_job_id(job_id);
  v1::JobStatus response;
  RETURN_IF_ERROR(Finish(stub_->Resume(call.context(), request, &response)));
  return response;
}

absl::StatusOr<v1::JobStatus> CoordinatorClient::Scale(const std::string& job_id, uint32_t min, uint32_t max) {
  Call call(*this);
  SetDeadline(call.context(), kCallTimeout);
  v1::ScaleRequest request;
  request.set_job_id(job_id);
  request.set_min(min);
  request.set_max(max);
  v1::JobStatus response;
  RETURN_IF_ERROR(Finish(stub_->Scale(call.context(), request, &response)));
  return response;
}

absl::StatusOr<v1::ListWorkersResponse> CoordinatorClient::ListWorkers() {
  Call call(*this);
  SetDeadline(call.context(), kCallTimeout);
  v1::ListWorkersResponse response;
  RETURN_IF_ERROR(Finish(stub_->ListWorkers(call.context(), v1::ListWorkersRequest(), &response)));
  return response;
}

absl::StatusOr<v1::VersionResponse> CoordinatorClient::Version() {
  Call call(*this);
  SetDeadline(call.context(), kCallTimeout);
  v1::VersionResponse response;
  RETURN_IF_ERROR(Finish(stub_->Version(call.context(), v1::VersionRequest(), &response)));
  return response;
}

absl::Status CoordinatorClient::Logs(const std::string& job_id, bool follow, absl::FunctionRef<void(const std::string&)> text) {
  Call call(*this);
  if (!follow) SetDeadline(call.context(), kCallTimeout);
  v1::LogsRequest request;
  request.set_job_id(job_id);
  request.set_follow(follow);
  const auto stream = stub_->Logs(call.context(), request);
  v1::LogChunk chunk;
  while (stream->Read(&chunk)) text(chunk.text());
  return Finish(stream->Finish());
}

absl::Status CoordinatorClient::Download(const std::string& job_id, const std::string& artifact, const std::string& path) {
  Call call(*this);
  v1::DownloadRequest request;
  request.set_job_id(job_id);
  request.set_artifact(artifact);
  const auto stream = stub_->Download(call.context(), request);
  const auto received = ReceiveFile(path, [&stream](v1::Chunk* chunk) { return stream->Read(chunk); });
  if (!received.ok() && !absl::IsUnavailable(received.status())) {
    call.context()->TryCancel();
    stream->Finish();
    return Annotate(received.status(), artifact);
  }
  const absl::Status finished = Finish(stream->Finish());
  return received.ok() ? absl::OkStatus() : finished.ok() ? received.status() : finished;
}

absl::Status CoordinatorClient::Watch(const std::string& job_id, uint64_t after_sequence,
                                      absl::FunctionRef<absl::Status(const v1::Event&)> event) {
  Call call(*this);
  v1::WatchRequest request;
  request.set_job_id(job_id);
  request.set_after_sequence(after_sequence);
  const auto stream = stub_->Watch(call.context(), request);
  v1::Event next;
  while (stream->Read(&next)) {
    if (const absl::Status taken = event(next); !taken.ok()) {
      call.context()->TryCancel();
      stream->Finish();
      return taken;
    }
  }
  return Finish(stream->Finish());
}

void CoordinatorClient::Stop(const absl::Status& reason) {
  absl::MutexLock lock(&mutex_);
  if (stopped_.ok()) stopped_ = reason;
  for (grpc::ClientContext* call : calls_) call->TryCancel();
}

absl::Status CoordinatorClient::Sleep(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto stopped = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !stopped_.ok(); };
  mutex_.AwaitWithTimeout(absl::Condition(&stopped), timeout);
  return stopped_;
}

}  // namespace lockstep
