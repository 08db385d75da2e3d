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
constexpr absl::Duration kRetryPause = absl::Milliseconds(100);
constexpr absl::Duration kConnectPause = absl::Seconds(1);
// Progress is gathered for this long, so that a thousand small steps a second are a few writes for the coordinator's disk.
constexpr absl::Duration kGather = absl::Milliseconds(200);
constexpr size_t kMostQueued = 10'000;
constexpr size_t kMostInOneReport = 500;

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
      process_generation_(start.order().generation()),
      process_rank_(start.order().rank()),
      channel_(MakeChannel(start.coordinator(), ToChannelOptions(start))),
      stub_(v1::Cluster::NewStub(channel_)),
      generation_(start.order().generation()),
      rank_(start.order().rank()),
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
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&closed_), kRetryPause)) return absl::CancelledError("the trainer ends");
    }
    // A channel connects only while somebody waits for it; else it is looked after every five seconds.
    channel_->WaitForConnected(absl::ToChronoTime(absl::Now() + kConnectPause));
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
    // Where the stream ended early, the server says why.
    if (!received.ok() && !absl::IsUnavailable(received.status())) context.TryCancel();
    const grpc::Status ended = stream->Finish();
    if (!ended.ok() && ended.error_code() != grpc::StatusCode::CANCELLED) return FromGrpcStatus(ended);
    return received.status();
  });
}

absl::Status Link::Store(const std::string& artifact, const std::string& path) {
  return Retry("StoreArtifact", [&]() -> absl::Status {
    grpc::ClientContext context;
    SetDeadline(&context, kFileDeadline);
    v1::StoreArtifactResponse response;
    auto stream = stub_->StoreArtifact(&context, &response);
    v1::StoreArtifactRequest request;
    request.mutable_header()->set_job_id(job_id_);
    request.mutable_header()->set_generation(generation());
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

absl::StatusOr<std::vector<std::string>> Link::TellKept(const std::string& checkpoint, const FileDigest& digest) {
  v1::StoreArtifactResponse response;
  RETURN_IF_ERROR(Retry("StoreArtifact", [&] {
    grpc::ClientContext context;
    SetDeadline(&context, kCallDeadline);
    auto stream = stub_->StoreArtifact(&context, &response);
    v1::StoreArtifactRequest request;
    v1::StoreArtifactHeader& header = *request.mutable_header();
    header.set_job_id(job_id_);
    header.set_generation(generation());
    header.set_artifact(checkpoint);
    header.set_kept_in_folder(true);
    header.set_total_bytes(digest.bytes);
    header.set_xxh3_128(digest.xxh3_128);
    stream->Write(request);
    stream->WritesDone();
    return FromGrpcStatus(stream->Finish());
  }));
  return std::vector<std::string>(response.checkpoints().begin(), response.checkpoints().end());
}

absl::StatusOr<std::vector<allreduce::Endpoint>> Link::Rendezvous(const allreduce::Endpoint& mine,
                                                                  const std::map<std::string, std::string>& environment) {
  v1::RendezvousRequest request;
  request.set_job_id(job_id_);
  request.set_generation(generation());
  request.set_rank(rank());
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

uint64_t Link::generation() const {
  absl::MutexLock lock(&mutex_);
  return generation_;
}

uint32_t Link::rank() const {
  absl::MutexLock lock(&mutex_);
  return rank_;
}

absl::StatusOr<v1::TrainerOrder> Link::Regroup(v1::RegroupRequest request) {
  request.set_job_id(job_id_);
  request.set_generation(generation());
  request.set_process_generation(process_generation_);
  request.set_process_rank(process_rank_);
  v1::TrainerOrder order;
  RETURN_IF_ERROR(Retry("Regroup", [&] {
    grpc::ClientContext context;
    SetDeadline(&context, kRendezvousDeadline);
    return FromGrpcStatus(stub_->Regroup(&context, request, &order));
  }));
  absl::MutexLock lock(&mutex_);
  generation_ = order.generation();
  rank_ = order.rank();
  return order;
}

bool Link::Drained() const { return closed_ || !broken_.ok() || Over() || (Sendable() == 0 && !sending_); }

absl::Status Link::ReportEnd(v1::EndReport report) {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &Link::Drained));
    RETURN_IF_ERROR(broken_);
    if (Over()) return absl::FailedPreconditionError(absl::StrCat("generation ", generation_, " is over"));
    report.set_generation(generation_);
  }
  return Retry("ReportEnd", [&] {
    grpc::ClientContext context;
    SetDeadline(&context, kCallDeadline);
    v1::Ack ack;
    return FromGrpcStatus(stub_->ReportEnd(&context, report, &ack));
  });
}

// What this rank is to send now.
size_t Link::Sendable() const {
  size_t count = notes_.size() + (pass_ ? 1 : 0);
  if (rank_ != 0) return count;
  for (auto step = steps_.begin(); step != steps_.end() && step->step() <= agreed_; ++step) ++count;
  for (auto epoch = epochs_.begin(); epoch != epochs_.end() && epoch->step() <= agreed_; ++epoch) ++count;
  return count;
}

void Link::Queue(absl::FunctionRef<void()> add) {
  absl::MutexLock lock(&mutex_);
  const auto room = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return closed_ || !broken_.ok() || Over() || rank_ != 0 || steps_.size() + notes_.size() < kMostQueued;
  };
  mutex_.Await(absl::Condition(&room));
  if (!closed_ && broken_.ok()) add();
}

void Link::QueueStep(v1::StepRecord record) {
  Queue([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    // It came with another's records.
    if (!steps_.empty() && record.step() <= steps_.back().step()) return;
    record.set_generation(generation_);
    steps_.push_back(std::move(record));
  });
}

void Link::QueueEpoch(v1::EpochRecord record) {
  Queue([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (epochs_.empty() || record.epoch() > epochs_.back().epoch()) epochs_.push_back(std::move(record));
  });
}

// The newest is enough.
void Link::QueuePass(v1::PassRecord record) {
  Queue([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { pass_ = std::move(record); });
}

void Link::QueueNote(std::string note) {
  Queue([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { notes_.push_back(std::move(note)); });
}

void Link::Forget(uint64_t durable_step) {
  absl::MutexLock lock(&mutex_);
  if (rank_ == 0) return;
  while (!steps_.empty() && steps_.front().step() <= durable_step) steps_.pop_front();
  // An epoch is sent before the step after it.
  while (!epochs_.empty() && epochs_.front().step() < durable_step) epochs_.pop_front();
}

void Link::Agreed(uint64_t step) {
  absl::MutexLock lock(&mutex_);
  agreed_ = std::max(agreed_, step);
}

std::string Link::Records() const {
  absl::MutexLock lock(&mutex_);
  v1::ProgressReport report;
  report.mutable_steps()->Add(steps_.begin(), steps_.end());
  report.mutable_epochs()->Add(epochs_.begin(), epochs_.end());
  return report.SerializeAsString();
}

void Link::TakeRecords(const std::string& records) {
  v1::ProgressReport report;
  if (!report.ParseFromString(records)) return LOG_ERROR("records=lost error=\"another replica's cannot be read\"");
  absl::MutexLock lock(&mutex_);
  steps_.assign(report.steps().begin(), report.steps().end());
  epochs_.assign(report.epochs().begin(), report.epochs().end());
}

v1::ProgressReport Link::TakeReport() {
  v1::ProgressReport report;
  report.set_job_id(job_id_);
  report.set_generation(generation_);
  for (std::string& note : notes_) report.add_notes(std::move(note));
  notes_.clear();
  if (pass_) *report.mutable_pass() = *std::exchange(pass_, std::nullopt);
  if (rank_ == 0) {
    for (auto step = steps_.begin(); step != steps_.end() && step->step() <= agreed_; ++step) *report.add_steps() = *step;
    for (auto epoch = epochs_.begin(); epoch != epochs_.end() && epoch->step() <= agreed_; ++epoch) *report.add_epochs() = *epoch;
  }
  return report;
}

void Link::TakeAnswer(const v1::ProgressReport& report, const v1::ProgressAck& ack) {
  durable_step_ = ack.durable_step();
  if (report.steps_size() > 0) {
    const uint64_t last = report.steps(report.steps_size() - 1).step();
    while (!steps_.empty() && steps_.front().step() <= last) steps_.pop_front();
  }
  if (report.epochs_size() > 0) {
    const uint32_t last = report.epochs(report.epochs_size() - 1).epoch();
    while (!epochs_.empty() && epochs_.front().epoch() <= last) epochs_.pop_front();
  }
}

void Link::SendLoop() {
  for (;;) {
    v1::ProgressReport report;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(this, &Link::QueueReady));
      if (!closed_ && Sendable() < kMostInOneReport) mutex_.AwaitWithTimeout(absl::Condition(&closed_), kGather);
      if (closed_) return;
      report = TakeReport();
      sending_ = true;
    }
    v1::ProgressAck ack;
    const absl::Status status = Retry("ReportProgress", [&] {
      grpc::ClientContext context;
      SetDeadline(&context, kCallDeadline);
      return FromGrpcStatus(stub_->ReportProgress(&context, report, &ack));
    });
    absl::MutexLock lock(&mutex_);
    sending_ = false;
    if (status.ok()) {
      TakeAnswer(report, ack);
    } else if (absl::IsFailedPrecondition(status)) {
      // A newer generation runs, or none: what is not answered is sent again if we have a place in it.
      over_ = report.generation();
      notes_.insert(notes_.begin(), report.notes().begin(), report.notes().end());
      LOG_WARNING("call=ReportProgress error=\"%s\" action=\"wait for the next generation\"", status.message());
    } else {
      broken_ = status;
      LOG_ERROR("call=ReportProgress error=\"%s\"", status.message());
      return;
    }
  }
}

}  // namespace lockstep
