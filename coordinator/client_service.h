#pragma once
// The client's service (proto/lockstep.proto) over the coordinator: streams and files here, every decision there. Thread-safe.

#include "coordinator/coordinator.h"
#include "coordinator/job_logs.h"
#include "coordinator/service_gate.h"
#include "coordinator/state_folder.h"
#include "proto/lockstep.grpc.pb.h"

namespace lockstep {

class ClientService final : public v1::Lockstep::Service {
 public:
  ClientService(Coordinator& coordinator, const StateFolder& folder, JobLogs& logs, CallGate& gate, std::string version)
      : coordinator_(coordinator), folder_(folder), logs_(logs), gate_(gate), version_(std::move(version)) {}

  grpc::Status Submit(grpc::ServerContext* context, grpc::ServerReader<v1::SubmitRequest>* reader, v1::SubmitResponse* response) override;
  grpc::Status Describe(grpc::ServerContext* context, const v1::DescribeRequest* request, v1::JobStatus* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListRequest* request, v1::ListResponse* response) override;
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request, grpc::ServerWriter<v1::Event>* writer) override;
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request, v1::JobStatus* response) override;
  grpc::Status Pause(grpc::ServerContext* context, const v1::PauseRequest* request, v1::JobStatus* response) override;
  grpc::Status Resume(grpc::ServerContext* context, const v1::ResumeRequest* request, v1::JobStatus* response) override;
  grpc::Status Ledger(grpc::ServerContext* context, const v1::LedgerRequest* request, grpc::ServerWriter<v1::Event>* writer) override;
  grpc::Status Scale(grpc::ServerContext* context, const v1::ScaleRequest* request, v1::JobStatus* response) override;
  grpc::Status Logs(grpc::ServerContext* context, const v1::LogsRequest* request, grpc::ServerWriter<v1::LogChunk>* writer) override;
  grpc::Status Download(grpc::ServerContext* context, const v1::DownloadRequest* request, grpc::ServerWriter<v1::Chunk>* writer) override;
  grpc::Status ListWorkers(grpc::ServerContext* context, const v1::ListWorkersRequest* request, v1::ListWorkersResponse* response) override;
  grpc::Status Version(grpc::ServerContext* context, const v1::VersionRequest* request, v1::VersionResponse* response) override;

 private:
  absl::StatusOr<std::string> TakeJob(grpc::ServerReader<v1::SubmitRequest>& reader);

  Coordinator& coordinator_;
  const StateFolder& folder_;
  JobLogs& logs_;
  CallGate& gate_;
  const std::string version_;
};

}  // namespace lockstep
