#pragma once
// Stands in for the coordinator in the worker's tests: a real gRPC server whose Attend answers every report with the orders of the
// moment. Thread-safe.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "proto/cluster.grpc.pb.h"
#include "rpc/server.h"

namespace lockstep {

inline constexpr char kTestToken[] = "test-token";

class FakeCoordinator final : public v1::Cluster::Service {
 public:
  FakeCoordinator();
  ~FakeCoordinator() override;

  // On the port of before, if there was one.
  void Start();
  void Stop();
  const std::string& address() const { return address_; }

  // From now on, the answer to every report.
  void Want(std::vector<v1::TrainerOrder> orders);
  // Answers every Attend with this.
  void Refuse(grpc::Status status);

  // The newest report with this property, among those that have come and those that will within 20 seconds; an empty one, and a
  // failed test, if none does.
  v1::WorkerReport Await(const std::function<bool(const v1::WorkerReport&)>& property, const std::string& what);
  // Waits for the end of a trainer.
  v1::TrainerReport AwaitEnd(const std::string& job_id, uint64_t generation = 1);
  // Waits until it runs and has committed a step.
  v1::TrainerReport AwaitRunning(const std::string& job_id, uint64_t generation = 1);
  // Waits until as many more reports have come.
  void AwaitReports(int count);

  // Everything that trainers of the job wrote.
  std::string LogOf(const std::string& job_id) const;
  // How many processes were ever seen of the job.
  size_t ProcessesOf(const std::string& job_id) const;
  // How many reports said that this trainer ended.
  size_t EndsOf(const std::string& job_id) const;

 private:
  grpc::Status Attend(grpc::ServerContext* context, grpc::ServerReaderWriter<v1::WorkerOrders, v1::WorkerReport>* stream) override;
  v1::WorkerOrders TakeIn(const v1::WorkerReport& report);
  bool AwaitUntil(const std::function<bool()>& condition);

  std::string address_ = "127.0.0.1:0";
  std::unique_ptr<RpcServer> server_;

  mutable absl::Mutex mutex_;
  std::vector<v1::TrainerOrder> wanted_ ABSL_GUARDED_BY(mutex_);
  grpc::Status refusal_ ABSL_GUARDED_BY(mutex_);
  v1::WorkerReport newest_ ABSL_GUARDED_BY(mutex_);
  int reports_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, std::string> logs_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::map<int64_t, int>> processes_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<std::string, uint64_t>, std::vector<v1::TrainerReport>> ends_ ABSL_GUARDED_BY(mutex_);
};

// A TRAIN order of rank 0 whose job's name is `behaviour` (see fake_trainer.cc).
v1::TrainerOrder MakeOrder(const std::string& job_id, const std::string& behaviour, uint64_t generation = 1);

}  // namespace lockstep
