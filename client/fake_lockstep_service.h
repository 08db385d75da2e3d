#pragma once
// A coordinator's client service in memory, for tests: events are what the test says, streams drop when the test says.
// Thread-safe.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "client/coordinator_client.h"
#include "proto/lockstep.grpc.pb.h"
#include "rpc/server.h"

namespace lockstep {

class FakeLockstepService final : public v1::Lockstep::Service {
 public:
  static constexpr const char* kToken = "secret";

  // Served on loopback at `address`; port 0: any.
  explicit FakeLockstepService(const std::string& address = "127.0.0.1:0");
  ~FakeLockstepService() override;

  const std::string& address() const { return server_->address(); }
  ChannelOptions channel_options() const { return {kToken, "", ""}; }

  // Sequence numbers are given in order.
  void AddEvent(v1::Event event);
  void AddState(v1::JobState state, v1::FailureKind failure = v1::NO_FAILURE);
  void AddSteps(uint64_t first, uint64_t last);
  // The next Watch stream breaks with Unavailable after so many events; then the ones after it, one number each.
  void DropWatchAfter(std::vector<size_t> events);
  void SetArtifact(const std::string& name, const std::string& contents) { Locked()->artifacts[name] = contents; }
  // The next so many submissions are taken in, and their answers lost.
  void LoseAnswersOfSubmit(int answers) { Locked()->lost_answers = answers; }
  // Of all that were taken in.
  std::vector<std::string> request_ids() { return Locked()->request_ids; }
  void CorruptDownloads() { Locked()->corrupt = true; }
  void SetStatus(const v1::JobStatus& status) { Locked()->status = status; }

  v1::Job submitted_job() { return Locked()->job; }
  std::string submitted_model() { return Locked()->model; }
  std::vector<uint64_t> watched_after() { return Locked()->watched_after; }
  int cancels() { return Locked()->cancels; }

  grpc::Status Submit(grpc::ServerContext* context, grpc::ServerReader<v1::SubmitRequest>* reader, v1::SubmitResponse* response) override;
  grpc::Status Describe(grpc::ServerContext* context, const v1::DescribeRequest* request, v1::JobStatus* response) override;
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request, grpc::ServerWriter<v1::Event>* writer) override;
  grpc::Status Scale(grpc::ServerContext* context, const v1::ScaleRequest* request, v1::JobStatus* response) override;
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request, v1::JobStatus* response) override;
  grpc::Status Download(grpc::ServerContext* context, const v1::DownloadRequest* request, grpc::ServerWriter<v1::Chunk>* writer) override;

 private:
  struct State {
    std::vector<v1::Event> events;
    std::vector<size_t> drops;
    std::map<std::string, std::string> artifacts;
    bool corrupt = false;
    v1::JobStatus status;
    v1::Job job;
    std::string model;
    int lost_answers = 0;
    std::vector<std::string> request_ids;
    std::vector<uint64_t> watched_after;
    int cancels = 0;
  };
  // The state, for one expression.
  class Guard {
   public:
    Guard(absl::Mutex& mutex, State& state) : lock_(&mutex), state_(state) {}
    State* operator->() { return &state_; }

   private:
    absl::MutexLock lock_;
    State& state_;
  };
  Guard Locked() { return Guard(mutex_, state_); }

  absl::Mutex mutex_;
  State state_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace lockstep
