#include "client/fake_lockstep_service.h"

#include <unistd.h>

#include <filesystem>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "rpc/file_stream.h"

namespace lockstep {
namespace {

std::string TemporaryPath(const char* name) {
  return (std::filesystem::temp_directory_path() / absl::StrCat("lockstep_fake_", name, ".", getpid())).string();
}

}  // namespace

FakeLockstepService::FakeLockstepService(const std::string& address) {
  ServerOptions options;
  options.listen = address;
  options.token = kToken;
  auto server = RpcServer::Start(options, {this});
  if (!server.ok()) throw std::runtime_error(server.status().ToString());
  server_ = *std::move(server);
}

FakeLockstepService::~FakeLockstepService() { server_->Shutdown(absl::ZeroDuration()); }

void FakeLockstepService::AddEvent(v1::Event event) {
  absl::MutexLock lock(&mutex_);
  event.set_sequence(state_.events.size() + 1);
  state_.events.push_back(std::move(event));
}

void FakeLockstepService::AddState(v1::JobState job_state, v1::FailureKind failure) {
  v1::Event event;
  event.mutable_state()->set_state(job_state);
  event.mutable_state()->set_failure(failure);
  AddEvent(std::move(event));
}

void FakeLockstepService::AddSteps(uint64_t first, uint64_t last) {
  for (uint64_t step = first; step <= last; ++step) {
    v1::Event event;
    event.mutable_step()->set_step(step);
    AddEvent(std::move(event));
  }
}

void FakeLockstepService::DropWatchAfter(std::vector<size_t> events) { Locked()->drops = std::move(events); }

grpc::Status FakeLockstepService::Submit(grpc::ServerContext* context, grpc::ServerReader<v1::SubmitRequest>* reader,
                                         v1::SubmitResponse* response) {
  if (grpc::Status status = Authorize(*context, kToken); !status.ok()) return status;
  v1::SubmitRequest request;
  if (!reader->Read(&request) || !request.has_job()) return {grpc::StatusCode::INVALID_ARGUMENT, "no job"};
  if (request.job().batch() == 0) return {grpc::StatusCode::INVALID_ARGUMENT, "batch: required"};
  Locked()->job = request.job();
  Locked()->request_ids.push_back(request.request_id());
  const std::string path = TemporaryPath("model");
  const auto received = ReceiveFile(path, [&](v1::Chunk* chunk) {
    if (!reader->Read(&request)) return false;
    *chunk = request.model();
    return true;
  });
  if (!received.ok()) return {grpc::StatusCode::DATA_LOSS, std::string(received.status().message())};
  Locked()->model = *ReadFile(path);
  unlink(path.c_str());
  if (Guard state = Locked(); state->lost_answers > 0) {
    --state->lost_answers;
    return {grpc::StatusCode::UNAVAILABLE, "lost by the test"};
  }
  response->set_job_id("job-1");
  return grpc::Status::OK;
}

grpc::Status FakeLockstepService::Describe(grpc::ServerContext* context, const v1::DescribeRequest* request, v1::JobStatus* response) {
  if (grpc::Status status = Authorize(*context, kToken); !status.ok()) return status;
  if (request->job_id() != "job-1") return {grpc::StatusCode::NOT_FOUND, absl::StrCat("no job ", request->job_id())};
  *response = Locked()->status;
  return grpc::Status::OK;
}

grpc::Status FakeLockstepService::Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                                        grpc::ServerWriter<v1::Event>* writer) {
  if (grpc::Status status = Authorize(*context, kToken); !status.ok()) return status;
  std::vector<v1::Event> events;
  size_t most = SIZE_MAX;
  {
    absl::MutexLock lock(&mutex_);
    state_.watched_after.push_back(request->after_sequence());
    for (const v1::Event& event : state_.events) {
      if (event.sequence() > request->after_sequence()) events.push_back(event);
    }
    if (!state_.drops.empty()) {
      most = state_.drops.front();
      state_.drops.erase(state_.drops.begin());
    }
  }
  for (size_t i = 0; i < events.size(); ++i) {
    if (i == most) return {grpc::StatusCode::UNAVAILABLE, "dropped by the test"};
    writer->Write(events[i]);
  }
  return most == events.size() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "dropped by the test") : grpc::Status::OK;
}

grpc::Status FakeLockstepService::Cancel(grpc::ServerContext* context, const v1::CancelRequest*, v1::JobStatus* response) {
  if (grpc::Status status = Authorize(*context, kToken); !status.ok()) return status;
  ++Locked()->cancels;
  *response = Locked()->status;
  return grpc::Status::OK;
}

grpc::Status FakeLockstepService::Scale(grpc::ServerContext* context, const v1::ScaleRequest* request, v1::JobStatus* response) {
  if (grpc::Status status = Authorize(*context, kToken); !status.ok()) return status;
  auto state = Locked();
  state->status.mutable_resolved()->mutable_replicas()->set_min(request->min());
  state->status.mutable_resolved()->mutable_replicas()->set_max(request->max());
  *response = state->status;
  return grpc::Status::OK;
}

grpc::Status FakeLockstepService::Download(grpc::ServerContext* context, const v1::DownloadRequest* request,
                                           grpc::ServerWriter<v1::Chunk>* writer) {
  if (grpc::Status status = Authorize(*context, kToken); !status.ok()) return status;
  const std::string path = TemporaryPath("artifact");
  bool corrupt = false;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = state_.artifacts.find(request->artifact());
    if (found == state_.artifacts.end()) return {grpc::StatusCode::NOT_FOUND, absl::StrCat("no artifact ", request->artifact())};
    if (!WriteFileAtomically(path, found->second).ok()) return {grpc::StatusCode::INTERNAL, "disk"};
    corrupt = state_.corrupt;
  }
  const absl::Status sent = SendFile(path, [&](const v1::Chunk& chunk) {
    v1::Chunk changed = chunk;
    if (corrupt && !chunk.data().empty()) (*changed.mutable_data())[0] ^= 1;
    return writer->Write(changed);
  });
  unlink(path.c_str());
  return sent.ok() ? grpc::Status::OK : grpc::Status(grpc::StatusCode::UNAVAILABLE, "broken");
}

}  // namespace lockstep
