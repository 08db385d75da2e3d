#include "worker/fake_coordinator.h"

#include <gtest/gtest.h>

#include <utility>

namespace lockstep {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

const v1::TrainerReport* Find(const v1::WorkerReport& report, const std::string& job_id, uint64_t generation) {
  for (const v1::TrainerReport& trainer : report.trainers()) {
    if (trainer.job_id() == job_id && trainer.generation() == generation && !trainer.ended()) return &trainer;
  }
  return nullptr;
}

}  // namespace

FakeCoordinator::FakeCoordinator() { Start(); }

FakeCoordinator::~FakeCoordinator() { Stop(); }

void FakeCoordinator::Start() {
  auto server = RpcServer::Start({.listen = address_, .token = kTestToken}, {this});
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  address_ = server_->address();
}

void FakeCoordinator::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(absl::ZeroDuration());
  server_.reset();
}

void FakeCoordinator::Want(std::vector<v1::TrainerOrder> orders) {
  absl::MutexLock lock(&mutex_);
  wanted_ = std::move(orders);
}

void FakeCoordinator::Refuse(grpc::Status status) {
  absl::MutexLock lock(&mutex_);
  refusal_ = std::move(status);
}

grpc::Status FakeCoordinator::Attend(grpc::ServerContext* context, grpc::ServerReaderWriter<v1::WorkerOrders, v1::WorkerReport>* stream) {
  if (grpc::Status allowed = Authorize(*context, kTestToken); !allowed.ok()) return allowed;
  v1::WorkerReport report;
  while (stream->Read(&report)) {
    {
      absl::MutexLock lock(&mutex_);
      if (!refusal_.ok()) return refusal_;
    }
    if (!stream->Write(TakeIn(report))) break;
    report.Clear();
  }
  return grpc::Status::OK;
}

v1::WorkerOrders FakeCoordinator::TakeIn(const v1::WorkerReport& report) {
  absl::MutexLock lock(&mutex_);
  for (const v1::LogLines& lines : report.logs()) logs_[lines.job_id()] += lines.text();
  for (const v1::TrainerReport& trainer : report.trainers()) {
    if (trainer.pid() != 0) processes_[trainer.job_id()][trainer.pid()]++;
    if (trainer.ended()) ends_[{trainer.job_id(), trainer.generation()}].push_back(trainer);
  }
  newest_ = report;
  ++reports_;
  v1::WorkerOrders orders;
  for (const v1::TrainerOrder& order : wanted_) *orders.add_trainers() = order;
  orders.set_heartbeat_ms(20);
  orders.set_acknowledged_sequence(report.sequence());
  return orders;
}

bool FakeCoordinator::AwaitUntil(const std::function<bool()>& condition) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(&condition, &std::function<bool()>::operator()), kPatience);
}

v1::WorkerReport FakeCoordinator::Await(const std::function<bool(const v1::WorkerReport&)>& property, const std::string& what) {
  v1::WorkerReport found;
  const bool came = AwaitUntil([&] {
    mutex_.AssertHeld();
    if (!property(newest_)) return false;
    found = newest_;
    return true;
  });
  EXPECT_TRUE(came) << "no report came with " << what;
  return found;
}

v1::TrainerReport FakeCoordinator::AwaitEnd(const std::string& job_id, uint64_t generation) {
  v1::TrainerReport found;
  const bool came = AwaitUntil([&] {
    mutex_.AssertHeld();
    const auto end = ends_.find({job_id, generation});
    if (end == ends_.end()) return false;
    found = end->second.back();
    return true;
  });
  EXPECT_TRUE(came) << "the end of " << job_id << " was not reported";
  return found;
}

v1::TrainerReport FakeCoordinator::AwaitRunning(const std::string& job_id, uint64_t generation) {
  const v1::WorkerReport report = Await(
      [&](const v1::WorkerReport& one) {
        const v1::TrainerReport* trainer = Find(one, job_id, generation);
        return trainer != nullptr && trainer->status().step() > 0;
      },
      job_id + " running");
  const v1::TrainerReport* trainer = Find(report, job_id, generation);
  return trainer == nullptr ? v1::TrainerReport() : *trainer;
}

void FakeCoordinator::AwaitReports(int count) {
  int until;
  {
    absl::MutexLock lock(&mutex_);
    until = reports_ + count;
  }
  EXPECT_TRUE(AwaitUntil([&] {
    mutex_.AssertHeld();
    return reports_ >= until;
  })) << "the worker does not report";
}

std::string FakeCoordinator::LogOf(const std::string& job_id) const {
  absl::MutexLock lock(&mutex_);
  const auto log = logs_.find(job_id);
  return log == logs_.end() ? "" : log->second;
}

size_t FakeCoordinator::ProcessesOf(const std::string& job_id) const {
  absl::MutexLock lock(&mutex_);
  const auto processes = processes_.find(job_id);
  return processes == processes_.end() ? 0 : processes->second.size();
}

size_t FakeCoordinator::EndsOf(const std::string& job_id) const {
  absl::MutexLock lock(&mutex_);
  size_t count = 0;
  for (const auto& [key, ends] : ends_) count += key.first == job_id ? ends.size() : 0;
  return count;
}

v1::TrainerOrder MakeOrder(const std::string& job_id, const std::string& behaviour, uint64_t generation) {
  v1::TrainerOrder order;
  order.set_job_id(job_id);
  order.set_generation(generation);
  order.set_role(v1::TRAIN);
  order.mutable_job()->set_name(behaviour);
  order.set_threads(1);
  return order;
}

}  // namespace lockstep
