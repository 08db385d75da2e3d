#include "coordinator/client_service.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "coordinator/artifact_stream.h"
#include "coordinator/job_check.h"
#include "rpc/file_stream.h"

namespace lockstep {
namespace {

constexpr uint32_t kDefaultList = 100;
constexpr uint32_t kMostInList = 1'000;
// How often a waiting stream looks whether its client is still there.
constexpr absl::Duration kLookEvery = absl::Seconds(1);
constexpr char kModel[] = "model.keras";

// What the client sees of a stream that it broke itself.
absl::Status Gone() { return absl::CancelledError("the client is gone"); }

// Whatever the disk says of the coordinator's own files is no fault of the client's job.
absl::Status Stored(const absl::Status& status) {
  if (status.ok() || absl::IsUnavailable(status) || absl::IsDataLoss(status)) return status;
  return absl::UnknownError(absl::StrCat("the coordinator cannot store the model: ", status.message()));
}

}  // namespace

grpc::Status ClientService::Submit(grpc::ServerContext* context, grpc::ServerReader<v1::SubmitRequest>* reader,
                                   v1::SubmitResponse* response) {
  return gate_.Serve("Submit", *context, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response->mutable_job_id(), TakeJob(*reader));
    return absl::OkStatus();
  });
}

absl::StatusOr<std::string> ClientService::TakeJob(grpc::ServerReader<v1::SubmitRequest>& reader) {
  v1::SubmitRequest request;
  if (!reader.Read(&request) || !request.has_job()) {
    return absl::InvalidArgumentError("Submit: the stream does not begin with the job");
  }
  const v1::Job job = std::move(*request.mutable_job());
  const std::string request_id = request.request_id();
  // Before the model is sent for nothing.
  if (const std::vector<std::string> errors = CheckJob(job); !errors.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> before, coordinator_.FindSubmitted(request_id, job));
  if (before) return *before;
  const std::string incoming = folder_.NewIncomingPath();
  const auto remove_incoming = absl::MakeCleanup([&] { folder_.Remove(incoming); });
  uint64_t bytes = 0;
  const auto read = [&](v1::Chunk* chunk) {
    if (!reader.Read(&request) || !request.has_model()) return false;
    *chunk = std::move(*request.mutable_model());
    bytes += chunk->data().size();
    return bytes <= job.model().size_bytes();
  };
  const absl::StatusOr<FileDigest> received = ReceiveFile(incoming, read);
  if (bytes > job.model().size_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("model: ", job.model().file_name(), " is longer than the ", job.model().size_bytes(),
                                                   " bytes that were announced; did it change while it was sent?"));
  }
  RETURN_IF_ERROR(Stored(received.status()));
  const FileDigest& digest = *received;
  const std::string id = coordinator_.NewJobId();
  ArtifactRecord model{kModel, ArtifactFileName(kModel, digest.xxh3_128), digest.bytes, digest.xxh3_128};
  RETURN_IF_ERROR(Stored(folder_.Adopt(incoming, id, model.file)));
  const std::string adopted = folder_.JobPath(id, model.file);
  absl::StatusOr<std::string> submitted = coordinator_.Submit(id, request_id, job, std::move(model));
  // After a failed write the job may be on the disk all the same, and will want its model; if not, a restart sweeps it.
  if (submitted.ok() ? *submitted != id : absl::IsInvalidArgument(submitted.status())) folder_.Remove(adopted);
  return submitted;
}

grpc::Status ClientService::Describe(grpc::ServerContext* context, const v1::DescribeRequest* request, v1::JobStatus* response) {
  return gate_.Serve("Describe", *context, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response, coordinator_.Describe(request->job_id()));
    return absl::OkStatus();
  });
}

grpc::Status ClientService::List(grpc::ServerContext* context, const v1::ListRequest* request, v1::ListResponse* response) {
  return gate_.Serve("List", *context, [&] {
    const uint32_t limit = request->limit() == 0 ? kDefaultList : std::min(request->limit(), kMostInList);
    for (v1::JobStatus& job : coordinator_.List(limit)) *response->add_jobs() = std::move(job);
    return absl::OkStatus();
  });
}

grpc::Status ClientService::Watch(grpc::ServerContext* context, const v1::WatchRequest* request, grpc::ServerWriter<v1::Event>* writer) {
  return gate_.Serve("Watch", *context, [&]() -> absl::Status {
    uint64_t after = request->after_sequence();
    while (!context->IsCancelled()) {
      ASSIGN_OR_RETURN(const Coordinator::Events page, coordinator_.ReadEvents(request->job_id(), after, kLookEvery));
      for (const auto& event : page.events) {
        if (!writer->Write(*event)) return Gone();
        after = event->sequence();
      }
      if (page.complete) return absl::OkStatus();
    }
    return Gone();
  });
}

grpc::Status ClientService::Cancel(grpc::ServerContext* context, const v1::CancelRequest* request, v1::JobStatus* response) {
  return gate_.Serve("Cancel", *context, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response, coordinator_.Cancel(request->job_id()));
    return absl::OkStatus();
  });
}

grpc::Status ClientService::Pause(grpc::ServerContext* context, const v1::PauseRequest* request, v1::JobStatus* response) {
  return gate_.Serve("Pause", *context, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response, coordinator_.Pause(request->job_id()));
    return absl::OkStatus();
  });
}

grpc::Status ClientService::Resume(grpc::ServerContext* context, const v1::ResumeRequest* request, v1::JobStatus* response) {
  return gate_.Serve("Resume", *context, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response, coordinator_.Resume(request->job_id()));
    return absl::OkStatus();
  });
}

grpc::Status ClientService::Ledger(grpc::ServerContext* context, const v1::LedgerRequest* request, grpc::ServerWriter<v1::Event>* writer) {
  return gate_.Serve("Ledger", *context, [&]() -> absl::Status {
    for (uint64_t after = 0; !context->IsCancelled();) {
      ASSIGN_OR_RETURN(const std::vector<v1::Event> events, coordinator_.ReadRecorded(request->job_id(), after));
      if (events.empty()) return absl::OkStatus();
      for (const v1::Event& event : events) {
        after = event.sequence();
        const uint32_t epoch = event.has_step() ? event.step().epoch() : event.has_epoch() ? event.epoch().epoch() : 0;
        if (epoch == 0 || (request->epoch() > 0 && epoch != request->epoch())) continue;
        if (!writer->Write(event)) return Gone();
      }
    }
    return Gone();
  });
}

grpc::Status ClientService::Scale(grpc::ServerContext* context, const v1::ScaleRequest* request, v1::JobStatus* response) {
  return gate_.Serve("Scale", *context, [&]() -> absl::Status {
    v1::Replicas wanted;
    wanted.set_min(request->min());
    wanted.set_max(request->max());
    ASSIGN_OR_RETURN(*response, coordinator_.Scale(request->job_id(), wanted));
    return absl::OkStatus();
  });
}

grpc::Status ClientService::Logs(grpc::ServerContext* context, const v1::LogsRequest* request, grpc::ServerWriter<v1::LogChunk>* writer) {
  return gate_.Serve("Logs", *context, [&]() -> absl::Status {
    int64_t offset = 0;
    while (!context->IsCancelled()) {
      ASSIGN_OR_RETURN(bool more, coordinator_.MayStillLog(request->job_id()));
      more = more && request->follow();
      ASSIGN_OR_RETURN(std::string text, logs_.Read(request->job_id(), offset, more ? kLookEvery : absl::ZeroDuration()));
      if (text.empty() && !more) return absl::OkStatus();
      offset += static_cast<int64_t>(text.size());
      v1::LogChunk chunk;
      chunk.set_text(std::move(text));
      if (!chunk.text().empty() && !writer->Write(chunk)) return Gone();
    }
    return Gone();
  });
}

grpc::Status ClientService::Download(grpc::ServerContext* context, const v1::DownloadRequest* request,
                                     grpc::ServerWriter<v1::Chunk>* writer) {
  return gate_.Serve("Download", *context, [&] {
    return SendArtifact(coordinator_, folder_, request->job_id(), request->artifact(),
                        [&](const v1::Chunk& chunk) { return writer->Write(chunk); });
  });
}

grpc::Status ClientService::ListWorkers(grpc::ServerContext* context, const v1::ListWorkersRequest* /*request*/,
                                        v1::ListWorkersResponse* response) {
  return gate_.Serve("ListWorkers", *context, [&] {
    for (v1::WorkerStatus& worker : coordinator_.Workers()) *response->add_workers() = std::move(worker);
    return absl::OkStatus();
  });
}

grpc::Status ClientService::Version(grpc::ServerContext* context, const v1::VersionRequest* /*request*/, v1::VersionResponse* response) {
  return gate_.Serve("Version", *context, [&] {
    response->set_version(version_);
    return absl::OkStatus();
  });
}

}  // namespace lockstep
