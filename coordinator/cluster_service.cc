#include "coordinator/cluster_service.h"

#include <optional>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/artifact_stream.h"
#include "coordinator/job_check.h"
#include "rpc/file_stream.h"

namespace lockstep {
namespace {

// Of one artifact.
constexpr uint64_t kMostBytes = uint64_t{1} << 40;
// How often a waiting call looks whether its caller is still there.
constexpr absl::Duration kLookEvery = absl::Seconds(1);

}  // namespace

grpc::Status ClusterService::Attend(grpc::ServerContext* context, AttendStream* stream) {
  return gate_.Serve("Attend", *context, [&] { return Serve(*context, *stream); });
}

absl::Status ClusterService::Serve(grpc::ServerContext& context, AttendStream& stream) {
  v1::WorkerReport first;
  if (!stream.Read(&first)) return absl::CancelledError("the worker is gone");
  ASSIGN_OR_RETURN(const uint64_t ticket, coordinator_.Attach(first));
  // gRPC lets one thread read and another write. The writer ends once the stream is none any more, or the coordinator stops; it
  // then wakes the reader.
  absl::Status written;
  std::thread writer([&] {
    written = WriteOrders(ticket, stream);
    context.TryCancel();
  });
  absl::Status read = ReadReports(ticket, std::move(first), stream);
  coordinator_.Detach(ticket);
  writer.join();
  if (!read.ok()) return read;
  // Detached by ourselves: the worker hung up.
  return absl::IsAborted(written) ? absl::OkStatus() : written;
}

absl::Status ClusterService::ReadReports(uint64_t ticket, v1::WorkerReport report, AttendStream& stream) {
  do {
    KeepLogs(report);
    // What could not be made durable is said again by the worker with its next report, as nothing acknowledges it.
    absl::Status taken = coordinator_.Report(ticket, report);
    if (absl::IsAborted(taken) || absl::IsInvalidArgument(taken)) return taken;
  } while (stream.Read(&report));
  return absl::OkStatus();
}

absl::Status ClusterService::WriteOrders(uint64_t ticket, AttendStream& stream) {
  uint64_t version = 0;
  for (;;) {
    ASSIGN_OR_RETURN(const std::optional<Coordinator::Orders> next, coordinator_.NextOrders(ticket, version, kLookEvery));
    if (!next) continue;
    if (!stream.Write(next->orders)) return absl::AbortedError("the worker is gone");
    version = next->version;
  }
}

void ClusterService::KeepLogs(const v1::WorkerReport& report) {
  for (const v1::LogLines& lines : report.logs()) {
    if (!coordinator_.MayStillLog(lines.job_id()).ok()) continue;
    if (absl::Status kept = logs_.Append(lines); !kept.ok()) LOG_WARNING("job=%s log=lost error=\"%s\"", lines.job_id(), kept.message());
  }
}

grpc::Status ClusterService::Rendezvous(grpc::ServerContext* context, const v1::RendezvousRequest* request,
                                        v1::RendezvousResponse* response) {
  return gate_.Serve("Rendezvous", *context, [&]() -> absl::Status {
    while (!context->IsCancelled()) {
      ASSIGN_OR_RETURN(std::optional<v1::RendezvousResponse> met, coordinator_.Rendezvous(*request, kLookEvery));
      if (!met) continue;
      *response = std::move(*met);
      return absl::OkStatus();
    }
    return absl::CancelledError("the trainer is gone");
  });
}

grpc::Status ClusterService::Regroup(grpc::ServerContext* context, const v1::RegroupRequest* request, v1::TrainerOrder* response) {
  return gate_.Serve("Regroup", *context, [&]() -> absl::Status {
    while (!context->IsCancelled()) {
      ASSIGN_OR_RETURN(std::optional<v1::TrainerOrder> order, coordinator_.Regroup(*request, kLookEvery));
      if (!order) continue;
      *response = std::move(*order);
      return absl::OkStatus();
    }
    return absl::CancelledError("the trainer is gone");
  });
}

grpc::Status ClusterService::ReportPlan(grpc::ServerContext* context, const v1::PlanReport* request, v1::Ack* /*response*/) {
  return gate_.Serve("ReportPlan", *context, [&] { return coordinator_.ReportPlan(*request); });
}

grpc::Status ClusterService::ReportProgress(grpc::ServerContext* context, const v1::ProgressReport* request, v1::ProgressAck* response) {
  return gate_.Serve("ReportProgress", *context, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response, coordinator_.ReportProgress(*request));
    return absl::OkStatus();
  });
}

grpc::Status ClusterService::ReportEnd(grpc::ServerContext* context, const v1::EndReport* request, v1::Ack* /*response*/) {
  return gate_.Serve("ReportEnd", *context, [&] { return coordinator_.ReportEnd(*request); });
}

grpc::Status ClusterService::FetchArtifact(grpc::ServerContext* context, const v1::FetchArtifactRequest* request,
                                           grpc::ServerWriter<v1::Chunk>* writer) {
  return gate_.Serve("FetchArtifact", *context, [&] {
    return SendArtifact(coordinator_, folder_, request->job_id(), request->artifact(),
                        [&](const v1::Chunk& chunk) { return writer->Write(chunk); });
  });
}

grpc::Status ClusterService::StoreArtifact(grpc::ServerContext* context, grpc::ServerReader<v1::StoreArtifactRequest>* reader,
                                           v1::StoreArtifactResponse* response) {
  return gate_.Serve("StoreArtifact", *context, [&]() -> absl::Status {
    ASSIGN_OR_RETURN(*response, Take(*reader));
    return absl::OkStatus();
  });
}

absl::StatusOr<v1::StoreArtifactResponse> ClusterService::Take(grpc::ServerReader<v1::StoreArtifactRequest>& reader) {
  v1::StoreArtifactRequest request;
  if (!reader.Read(&request) || !request.has_header()) {
    return absl::InvalidArgumentError("StoreArtifact: the stream does not begin with the header");
  }
  const v1::StoreArtifactHeader header = request.header();
  if (!IsPlainFileName(header.artifact())) {
    return absl::InvalidArgumentError(absl::StrCat("artifact: \"", header.artifact(), "\" is not a plain file name"));
  }
  RETURN_IF_ERROR(coordinator_.MayStore(header.job_id(), header.generation()));
  ArtifactRecord artifact{header.artifact(), "", header.total_bytes(), header.xxh3_128()};
  if (!header.kept_in_folder()) {
    ASSIGN_OR_RETURN(artifact, Receive(header, reader));
  }
  ASSIGN_OR_RETURN(const std::vector<ArtifactRecord> replaced,
                   coordinator_.StoreArtifact(header.job_id(), header.generation(), std::move(artifact)));
  for (const ArtifactRecord& old : replaced) {
    if (!old.file.starts_with('/')) folder_.Remove(folder_.JobPath(header.job_id(), old.file));
  }
  v1::StoreArtifactResponse response;
  ASSIGN_OR_RETURN(const v1::JobStatus status, coordinator_.Describe(header.job_id()));
  for (const std::string& name : status.artifacts()) {
    if (name.starts_with("checkpoint-")) response.add_checkpoints(name);
  }
  return response;
}

absl::StatusOr<ArtifactRecord> ClusterService::Receive(const v1::StoreArtifactHeader& header,
                                                       grpc::ServerReader<v1::StoreArtifactRequest>& reader) {
  const std::string incoming = folder_.NewIncomingPath();
  const auto remove_incoming = absl::MakeCleanup([&] { folder_.Remove(incoming); });
  v1::StoreArtifactRequest request;
  const auto read = [&](v1::Chunk* chunk) {
    if (!reader.Read(&request) || !request.has_chunk()) return false;
    *chunk = std::move(*request.mutable_chunk());
    return true;
  };
  ASSIGN_OR_RETURN(const FileDigest digest, ReceiveFile(incoming, read, kMostBytes));
  ArtifactRecord artifact{header.artifact(), ArtifactFileName(header.artifact(), digest.xxh3_128), digest.bytes, digest.xxh3_128};
  RETURN_IF_ERROR(folder_.Adopt(incoming, header.job_id(), artifact.file));
  return artifact;
}

}  // namespace lockstep
