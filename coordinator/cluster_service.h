#pragma once
// The service of workers and trainers (proto/cluster.proto) over the coordinator: streams and files here, every decision there.
// Thread-safe.

#include "coordinator/coordinator.h"
#include "coordinator/job_logs.h"
#include "coordinator/service_gate.h"
#include "coordinator/state_folder.h"
#include "proto/cluster.grpc.pb.h"

namespace lockstep {

class ClusterService final : public v1::Cluster::Service {
 public:
  ClusterService(Coordinator& coordinator, const StateFolder& folder, JobLogs& logs, CallGate& gate)
      : coordinator_(coordinator), folder_(folder), logs_(logs), gate_(gate) {}

  using AttendStream = grpc::ServerReaderWriter<v1::WorkerOrders, v1::WorkerReport>;

  grpc::Status Attend(grpc::ServerContext* context, AttendStream* stream) override;
  grpc::Status Regroup(grpc::ServerContext* context, const v1::RegroupRequest* request, v1::TrainerOrder* response) override;
  grpc::Status Rendezvous(grpc::ServerContext* context, const v1::RendezvousRequest* request, v1::RendezvousResponse* response) override;
  grpc::Status ReportPlan(grpc::ServerContext* context, const v1::PlanReport* request, v1::Ack* response) override;
  grpc::Status ReportProgress(grpc::ServerContext* context, const v1::ProgressReport* request, v1::ProgressAck* response) override;
  grpc::Status ReportEnd(grpc::ServerContext* context, const v1::EndReport* request, v1::Ack* response) override;
  grpc::Status FetchArtifact(grpc::ServerContext* context, const v1::FetchArtifactRequest* request,
                             grpc::ServerWriter<v1::Chunk>* writer) override;
  grpc::Status StoreArtifact(grpc::ServerContext* context, grpc::ServerReader<v1::StoreArtifactRequest>* reader,
                             v1::StoreArtifactResponse* response) override;

 private:
  absl::Status Serve(grpc::ServerContext& context, AttendStream& stream);
  absl::Status ReadReports(uint64_t ticket, v1::WorkerReport report, AttendStream& stream);
  absl::Status WriteOrders(uint64_t ticket, AttendStream& stream);
  void KeepLogs(const v1::WorkerReport& report);
  absl::StatusOr<v1::StoreArtifactResponse> Take(grpc::ServerReader<v1::StoreArtifactRequest>& reader);
  absl::StatusOr<ArtifactRecord> Receive(const v1::StoreArtifactHeader& header, grpc::ServerReader<v1::StoreArtifactRequest>& reader);

  Coordinator& coordinator_;
  const StateFolder& folder_;
  JobLogs& logs_;
  CallGate& gate_;
};

}  // namespace lockstep
