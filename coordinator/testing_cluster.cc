#include "coordinator/testing_cluster.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/logging.h"

namespace lockstep {

v1::Job SmallJob() {
  v1::Job job;
  job.set_name("small");
  job.set_kind(v1::Job::FIT);
  job.mutable_model()->set_file_name("tiny.keras");
  job.mutable_model()->set_size_bytes(7);
  job.mutable_model()->set_xxh3_128(kTestDigest);
  job.mutable_data()->mutable_train()->set_folder("/data/train");
  job.set_batch(16);
  job.set_steps(3);
  job.set_virtual_replicas(4);
  job.mutable_replicas()->set_min(1);
  job.mutable_replicas()->set_max(2);
  return job;
}

ArtifactRecord ModelOf(const v1::Job& job) {
  return {"model.keras", "model.keras.0123456789abcdef", job.model().size_bytes(), job.model().xxh3_128()};
}

v1::PlanReport PlanOf(const std::string& job_id, const v1::Job& job) {
  v1::PlanReport plan;
  plan.set_job_id(job_id);
  *plan.mutable_resolved() = job;
  plan.mutable_resolved()->mutable_replicas()->set_threads(2);
  plan.mutable_profile()->set_peak_bytes(100 << 20);
  plan.mutable_profile()->set_bytes_per_further_thread(10 << 20);
  plan.set_total_steps(job.steps());
  plan.add_notes("2 files ignored");
  return plan;
}

v1::StepRecord StepOf(uint64_t step, uint64_t generation) {
  v1::StepRecord record;
  record.set_step(step);
  record.set_epoch(1);
  record.set_loss(1.0 / static_cast<double>(step));
  record.set_state_hash(absl::StrFormat("%032x", step * 2654435761));
  record.set_generation(generation);
  record.set_samples(16);
  record.set_sample_digest(step * 40503);
  record.mutable_phases()->set_total(0.5);
  return record;
}

TestingCluster::TestingCluster(CoordinatorOptions options)
    : options_([&options] {
        options.version = kTestVersion;
        static const bool quiet = (InitLogging("test", LogLevel::kError), true);
        (void)quiet;
        return options;
      }()) {
  Restart();
}

void TestingCluster::Restart() {
  coordinator_.reset();
  store_.reset();
  auto store = Store::Open(folder_ / "store.sqlite");
  ASSERT_TRUE(store.ok()) << store.status();
  store_ = std::move(*store);
  auto coordinator = Coordinator::Create(options_, *store_, clock_);
  ASSERT_TRUE(coordinator.ok()) << coordinator.status();
  coordinator_ = std::move(*coordinator);
}

void TestingCluster::Pass(absl::Duration time) {
  const absl::Duration step = options_.lease / 10;
  for (; time > absl::ZeroDuration(); time -= step) {
    clock_.Advance(std::min(time, step));
    coordinator_->Tick();
  }
}

std::string TestingCluster::Submit(const v1::Job& job) {
  std::string id = coordinator_->NewJobId();
  const absl::Status submitted = coordinator_->Submit(id, "", job, ModelOf(job)).status();
  EXPECT_TRUE(submitted.ok()) << submitted;
  return id;
}

absl::Status TestingCluster::Plan(const std::string& job_id) { return coordinator_->ReportPlan(PlanOf(job_id, Status(job_id).job())); }

absl::Status TestingCluster::Progress(const std::string& job_id, uint64_t generation, uint64_t first, uint64_t last) {
  v1::ProgressReport report;
  report.set_job_id(job_id);
  report.set_generation(generation);
  for (uint64_t step = first; step <= last; ++step) *report.add_steps() = StepOf(step, generation);
  return coordinator_->ReportProgress(report).status();
}

absl::Status TestingCluster::End(const std::string& job_id, uint64_t generation, v1::JobState state) {
  v1::EndReport report;
  report.set_job_id(job_id);
  report.set_generation(generation);
  report.set_state(state);
  report.mutable_result()->set_steps(3);
  return coordinator_->ReportEnd(report);
}

v1::JobStatus TestingCluster::Status(const std::string& job_id) const {
  const auto status = coordinator_->Describe(job_id);
  EXPECT_TRUE(status.ok()) << status.status();
  return status.ok() ? *status : v1::JobStatus();
}

v1::JobState TestingCluster::State(const std::string& job_id) const { return Status(job_id).state(); }

std::vector<v1::Event> AllEvents(const Coordinator& coordinator, const std::string& job_id, uint64_t after) {
  std::vector<v1::Event> events;
  for (;;) {
    const auto page = coordinator.ReadEvents(job_id, after, absl::ZeroDuration());
    EXPECT_TRUE(page.ok()) << page.status();
    if (!page.ok()) return events;
    for (const auto& event : page->events) events.push_back(*event);
    if (page->complete || page->events.empty()) return events;
    after = events.back().sequence();
  }
}

std::string DurableState(const Coordinator& coordinator) {
  std::string text;
  for (const v1::JobStatus& listed : coordinator.List(1000)) {
    v1::JobStatus status = *coordinator.Describe(listed.job_id());
    status.clear_joining();
    status.clear_hang();
    for (v1::ReplicaStatus& replica : *status.mutable_replicas()) {
      replica.clear_state();
      replica.clear_pid();
      replica.clear_memory();
    }
    absl::StrAppend(&text, status.DebugString());
    for (const v1::Event& event : AllEvents(coordinator, listed.job_id())) absl::StrAppend(&text, event.DebugString());
    for (const std::string& name : listed.artifacts()) {
      const auto artifact = coordinator.FindArtifact(listed.job_id(), name);
      absl::StrAppend(&text, name, " ", artifact->file, " ", artifact->bytes, " ", artifact->xxh3_128, "\n");
    }
  }
  return text;
}

FakeWorker::FakeWorker(TestingCluster& cluster, const std::string& id, uint32_t slots, uint64_t memory_bytes) : cluster_(cluster) {
  report_.set_worker_id(id);
  report_.set_version(kTestVersion);
  report_.set_host("host-" + id);
  report_.set_cores(4);
  report_.set_slots(slots);
  report_.set_memory_bytes(memory_bytes);
  report_.set_address("127.0.0.1");
}

absl::Status FakeWorker::Attend() {
  report_.set_sequence(report_.sequence() + 1);
  const auto stream = cluster_->Attach(report_);
  if (!stream.ok()) return stream.status();
  stream_ = *stream;
  return cluster_->Report(stream_, report_);
}

absl::Status FakeWorker::Report() {
  report_.set_sequence(report_.sequence() + 1);
  return cluster_->Report(stream_, report_);
}

void FakeWorker::Leave() {
  report_.set_leaving(true);
  EXPECT_TRUE(Report().ok());
  cluster_->Detach(stream_);
}

v1::WorkerOrders FakeWorker::Orders() const {
  const auto orders = cluster_->NextOrders(stream_, 0, absl::ZeroDuration());
  EXPECT_TRUE(orders.ok()) << orders.status();
  EXPECT_TRUE(orders.ok() && orders->has_value());
  return orders.ok() && orders->has_value() ? (*orders)->orders : v1::WorkerOrders();
}

void FakeWorker::Obey() {
  const v1::WorkerOrders orders = Orders();
  auto& running = *report_.mutable_trainers();
  const auto same = [](const auto& a, const auto& b) {
    return a.job_id() == b.job_id() && a.generation() == b.generation() && a.rank() == b.rank();
  };
  running.erase(std::remove_if(running.begin(), running.end(),
                               [&](const v1::TrainerReport& trainer) {
                                 return std::none_of(orders.trainers().begin(), orders.trainers().end(),
                                                     [&](const auto& order) { return same(order, trainer); });
                               }),
                running.end());
  for (const v1::TrainerOrder& order : orders.trainers()) {
    if (std::any_of(running.begin(), running.end(), [&](const auto& trainer) { return same(order, trainer); })) continue;
    v1::TrainerReport& trainer = *running.Add();
    trainer.set_job_id(order.job_id());
    trainer.set_generation(order.generation());
    trainer.set_rank(order.rank());
    trainer.set_role(order.role());
    trainer.set_pid(1000 + running.size());
  }
  EXPECT_TRUE(Report().ok());
}

void FakeWorker::TrainerEnds(const std::string& job_id, uint32_t rank, int exit_code, int signal, uint64_t generation) {
  v1::TrainerReport* found = nullptr;
  for (v1::TrainerReport& trainer : *report_.mutable_trainers()) {
    if (trainer.job_id() != job_id || trainer.rank() != rank || trainer.ended()) continue;
    if (generation > 0 && trainer.generation() != generation) continue;
    if (found == nullptr || trainer.generation() > found->generation()) found = &trainer;
  }
  ASSERT_NE(found, nullptr);
  found->set_ended(true);
  found->set_exit_code(exit_code);
  found->set_signal(signal);
  EXPECT_TRUE(Report().ok());
}

void FakeWorker::BecomeAnother() {
  cluster_->Detach(stream_);
  report_.clear_trainers();
  report_.set_sequence(0);
}

}  // namespace lockstep
