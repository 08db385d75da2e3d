#include "trainer/link.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "rpc/channel.h"
#include "rpc/file_stream.h"
#include "rpc/status.h"

namespace lockstep {
namespace {

constexpr absl::Duration kCallDeadline = absl::Seconds(30);
constexpr absl::Duration kFileDeadline = absl::Minutes(10);
constexpr absl::Duration kRendezvousDeadline = absl::Minutes(2);
constexpr absl::Duration kRetryPause = absl::Milliseconds(200);
// Progress is gathered for this long, so that a thousand small steps a second are a few writes for the coordinator's disk.
constexpr absl::Duration kGather = absl::Milliseconds(200);
constexpr int kMostQueued = 10'000;
constexpr int kMostInOneReport = 500;

ChannelOptions ToChannelOptions(const v1::TrainerStart& start) {
  ChannelOptions options;
  options.token = start.token();
  options.ca_certificate = start.ca_certificate();
  options.server_name = start.server_name();
  return options;
}

}  // namespace

Link::Link(const v1::TrainerStart& start)
    : job_id_(start.order().job_id()),
      generation_(start.order().generation()),
      rank_(start.order().rank()),
      stub_(v1::Cluster::NewStub(MakeChannel(start.coordinator(), ToChannelOptions(start)))),
      sender_([this] { SendLoop(); }) {}

Link::~Link() {
  Close();
  sender_.join();
}

void Link::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

absl::Status Link::Retry(const char* what, absl::FunctionRef<absl::Status()> call) {
  bool told = false;
  for (;;) {
    absl::Status status = call();
    // No call here is cancelled by us: a server that ends answers so to what comes in just then.
    if (!IsRetryable(status) && !absl::IsCancelled(status)) return Annotate(status, what);
    if (!told) LOG_WARNING("call=%s error=\"%s\" action=retry", what, status.message());
    told = true;
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&closed_), kRetryPause)) return absl::CancelledError("the trainer ends");
  }
}

absl::Status Link::Fetch(const std::string& artifact, const std::string& path) {
  return Retry("FetchArtifact", [&]() -> absl::Status {
    grpc::ClientContext context;
    SetDeadline(&context, kFileDeadline);
    v1::FetchArtifactRequest request;
    request.set_job_id(job_id_);
    request.set_artifact(artifact);
    auto stream = stub_->FetchArtifact(&context, request);
    auto received = ReceiveFile(path, [&](v1::Chunk* chunk) { return stream->Read(chunk); });
    if (!received.ok()) context.TryCancel();
    const grpc::Status ended = stream->Finish();
    if (!ended.ok() && ended.error_code() != grpc::StatusCode::CANCELLED) return FromGrpcStatus(ended);
    return received.status();
  });
}

absl::Status Link::Store(const std::string& artifact, const std::string& path) {
  return Retry("StoreArtifact", [&]() -> absl::Status {
    grpc::ClientContext context;
    SetDeadline(&context, kFileDeadline);
    v1::Ack ack;
    auto stream = stub_->StoreArtifact(&context, &ack);
    v1::StoreArtifactRequest request;
    request.mutable_header()->set_job_id(job_id_);
    request.mutable_header()->set_generation(generation_);
    request.mutable_header()->set_artifact(artifact);
    absl::Status sent = absl::UnavailableError("the stream was broken");
    if (stream->Write(request)) {
      sent = SendFile(path, [&](const v1::Chunk& chunk) {
        *request.mutable_chunk() = chunk;
        return stream->Write(request);
      });
    }
    stream->WritesDone();
    const grpc::Status ended = stream->Finish();
    if (!ended.ok()) return FromGrpcStatus(ended);
    return sent;
  });
}

absl::StatusOr<std::vector<allreduce::Endpoint>> Link::Rendezvous(const allreduce::Endpoint& mine,
                                                                  const std::map<std::string, std::string>& environment) {
  v1::RendezvousRequest request;
  request.set_job_id(job_id_);
  request.set_generation(generation_);
  request.set_rank(rank_);
  request.mutable_endpoint()->set_host_id(mine.host_id);
  request.mutable_endpoint()->set_address(mine.address);
  request.mutable_endpoint()->set_local_socket(mine.local_socket);
  for (const auto& [name, value] : environment) (*request.mutable_environment())[name] = value;
  v1::RendezvousResponse response;
  RETURN_IF_ERROR(Retry("Rendezvous", [&] {
    grpc::ClientContext context;
    SetDeadline(&context, kRendezvousDeadline);
    return FromGrpcStatus(stub_->Rendezvous(&context, request, &response));
  }));
  std::vector<allreduce::Endpoint> endpoints;
  for (const v1::Endpoint& endpoint : response.endpoints()) {
    endpoints.push_back({endpoint.host_id(), endpoint.address(), endpoint.local_socket()});
  }
  return endpoints;
}

absl::Status Link::ReportPlan(const v1::PlanReport& report) {
  return Retry("ReportPlan", [&] {
    grpc::ClientContext context;
    SetDeadline(&context, kCallDeadline);
    v1::Ack ack;
    return FromGrpcStatus(stub_->ReportPlan(&context, report, &ack));
  });
}

bool Link::Drained() const { return closed_ || !broken_.ok() || (queued_ == 0 && !sending_); }

absl::Status Link::ReportEnd(const v1::EndReport& report) {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Link::Drained));
    RETURN_IF_ERROR(broken_);
  }
  return Retry("ReportEnd", [&] {
    grpc::ClientContext context;
    SetDeadline(&context, kCallDeadline);
    v1::Ack ack;
    return FromGrpcStatus(stub_->ReportEnd(&context, report, &ack));
  });
}

void Link::Queue(absl::FunctionRef<void(v1::ProgressReport*)> add) {
  absl::MutexLock lock(&mutex_);
  const auto room = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return closed_ || !broken_.ok() || queued_ < kMostQueued; };
  mutex_.Await(absl::Condition(&room));
  if (closed_ || !broken_.ok()) return;
  add(&pending_);
  ++queued_;
}

void Link::QueueStep(v1::StepRecord record) {
  record.set_generation(generation_);
  Queue([&](v1::ProgressReport* report) { *report->add_steps() = std::move(record); });
}

void Link::QueueEpoch(v1::EpochRecord record) {
  Queue([&](v1::ProgressReport* report) { *report->add_epochs() = std::move(record); });
}

// The newest is enough.
void Link::QueuePass(v1::PassRecord record) {
  Queue([&](v1::ProgressReport* report) { *report->mutable_pass() = std::move(record); });
}

void Link::QueueNote(std::string note) {
  Queue([&](v1::ProgressReport* report) { report->add_notes(std::move(note)); });
}

bool Link::QueueReady() const { return closed_ || queued_ > 0; }

void Link::SendLoop() {
  for (;;) {
    v1::ProgressReport report;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Link::QueueReady));
      if (!closed_ && queued_ < kMostInOneReport) mutex_.AwaitWithTimeout(absl::Condition(&closed_), kGather);
      if (closed_) return;
      report.Swap(&pending_);
      queued_ = 0;
      sending_ = true;
    }
    report.set_job_id(job_id_);
    report.set_generation(generation_);
    report.set_total_steps(total_steps_);
    const absl::Status status = Retry("ReportProgress", [&] {
      grpc::ClientContext context;
      SetDeadline(&context, kCallDeadline);
      v1::ProgressAck ack;
      return FromGrpcStatus(stub_->ReportProgress(&context, report, &ack));
    });
    absl::MutexLock lock(&mutex_);
    sending_ = false;
    if (!status.ok()) {
      // The coordinator will not have it: another generation runs, or this one contradicted what is durable.
      broken_ = status;
      LOG_ERROR("call=ReportProgress error=\"%s\"", status.message());
      return;
    }
  }
}

}  // namespace lockstep
