// A whole job over a real coordinator's ports, with a worker and trainers that are the test's own; server_test covers each service
// by itself, coordinator_test the decisions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/test_folder.h"
#include "coordinator/server.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/lockstep.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/file_stream.h"
#include "rpc/status.h"

namespace lockstep {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kToken[] = "a token";
constexpr char kVersion[] = "1.2.3";

class Services : public ::testing::Test {
 protected:
  void SetUp() override { Start(); }
  void TearDown() override { server_.reset(); }

  CoordinatorServer::Options Options() const {
    CoordinatorServer::Options options;
    options.state_folder = folder_ / "state";
    options.rpc = {.listen = "127.0.0.1:0", .token = kToken};
    options.http_listen = "127.0.0.1:0";
    options.coordinator.version = kVersion;
    options.coordinator.heartbeat = absl::Milliseconds(50);
    return options;
  }
  void Start() {
    auto server = CoordinatorServer::Start(Options());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    const auto channel = MakeChannel(server_->rpc_address(), {.token = kToken});
    client_ = v1::Lockstep::NewStub(channel);
    cluster_ = v1::Cluster::NewStub(channel);
  }
  std::string File(const std::string& name, const std::string& contents) const {
    std::string path = folder_ / name;
    EXPECT_TRUE(WriteFileAtomically(path, contents).ok());
    return path;
  }

  v1::Job Job() const {
    v1::Job job;
    job.mutable_model()->set_file_name("flowers.keras");
    job.mutable_data()->mutable_train()->set_folder("/data/flowers");
    job.set_batch(16);
    job.set_steps(3);
    job.set_virtual_replicas(4);
    job.mutable_replicas()->set_min(2);
    job.mutable_replicas()->set_max(2);
    return job;
  }

  absl::StatusOr<std::string> Submit(v1::Job job, const std::string& path) {
    const auto digest = DigestFile(path);
    job.mutable_model()->set_size_bytes(digest->bytes);
    job.mutable_model()->set_xxh3_128(digest->xxh3_128);
    grpc::ClientContext context;
    v1::SubmitResponse response;
    const auto stream = client_->Submit(&context, &response);
    v1::SubmitRequest request;
    *request.mutable_job() = job;
    stream->Write(request);
    SendFile(path, [&](const v1::Chunk& chunk) {
      *request.mutable_model() = chunk;
      return stream->Write(request);
    }).IgnoreError();
    stream->WritesDone();
    const absl::Status status = FromGrpcStatus(stream->Finish());
    if (!status.ok()) return status;
    return response.job_id();
  }

  absl::Status Store(const std::string& job_id, uint64_t generation, const std::string& artifact, const std::string& path) {
    grpc::ClientContext context;
    v1::StoreArtifactResponse ack;
    const auto stream = cluster_->StoreArtifact(&context, &ack);
    v1::StoreArtifactRequest request;
    request.mutable_header()->set_job_id(job_id);
    request.mutable_header()->set_generation(generation);
    request.mutable_header()->set_artifact(artifact);
    stream->Write(request);
    SendFile(path, [&](const v1::Chunk& chunk) {
      *request.mutable_chunk() = chunk;
      return stream->Write(request);
    }).IgnoreError();
    stream->WritesDone();
    return FromGrpcStatus(stream->Finish());
  }

  absl::StatusOr<std::string> Download(const std::string& job_id, const std::string& artifact) {
    grpc::ClientContext context;
    v1::DownloadRequest request;
    request.set_job_id(job_id);
    request.set_artifact(artifact);
    const auto stream = client_->Download(&context, request);
    const std::string path = folder_ / "downloaded";
    const auto received = ReceiveFile(path, [&](v1::Chunk* chunk) { return stream->Read(chunk); });
    const absl::Status status = FromGrpcStatus(stream->Finish());
    if (!status.ok()) return status;
    if (!received.ok()) return received.status();
    return ReadFile(path);
  }

  std::vector<v1::Event> Watch(const std::string& job_id, uint64_t after) {
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    v1::WatchRequest request;
    request.set_job_id(job_id);
    request.set_after_sequence(after);
    const auto stream = client_->Watch(&context, request);
    std::vector<v1::Event> events;
    v1::Event event;
    while (stream->Read(&event)) events.push_back(event);
    const grpc::Status ended = stream->Finish();
    EXPECT_TRUE(ended.ok()) << ended.error_message();
    return events;
  }

  v1::JobState State(const std::string& job_id) { return server_->coordinator().Describe(job_id)->state(); }

  const TestFolder folder_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<v1::Lockstep::Stub> client_;
  std::unique_ptr<v1::Cluster::Stub> cluster_;
};

// One Attend stream, and a worker of two slots behind it.
class WorkerStream {
 public:
  explicit WorkerStream(v1::Cluster::Stub& stub) : stream_(stub.Attend(&context_)) {
    SetDeadline(&context_, absl::Seconds(60));
    report_.set_worker_id("w1");
    report_.set_version(kVersion);
    report_.set_host("here");
    report_.set_cores(2);
    report_.set_slots(2);
    report_.set_address("127.0.0.1");
    Report();
  }

  v1::WorkerReport& report() { return report_; }
  void Report() {
    report_.set_sequence(report_.sequence() + 1);
    stream_->Write(report_);
  }
  // Reads orders until there are `trainers` of the role.
  std::vector<v1::TrainerOrder> Await(v1::Role role, size_t trainers) {
    v1::WorkerOrders orders;
    while (stream_->Read(&orders)) {
      std::vector<v1::TrainerOrder> found;
      for (const v1::TrainerOrder& order : orders.trainers()) {
        if (order.role() == role) found.push_back(order);
      }
      if (found.size() == trainers) return found;
    }
    ADD_FAILURE() << "the stream ended before the orders came";
    return {};
  }
  absl::Status Finish() {
    v1::WorkerOrders orders;
    while (stream_->Read(&orders)) {
    }
    return FromGrpcStatus(stream_->Finish());
  }
  void HangUp() {
    stream_->WritesDone();
    Finish().IgnoreError();
  }

 private:
  grpc::ClientContext context_;
  v1::WorkerReport report_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerReport, v1::WorkerOrders>> stream_;
};

TEST_F(Services, AJobFromTheClientsFileToTheTrainedOne) {
  WorkerStream worker(*cluster_);
  const std::string model(3'000'000, 'm');
  const auto id = Submit(Job(), File("flowers.keras", model));
  ASSERT_TRUE(id.ok()) << id.status();

  const auto plan = worker.Await(v1::PLAN, 1);
  ASSERT_EQ(plan.size(), 1u);
  EXPECT_EQ(Download(*id, "model.keras").value(), model);
  ASSERT_TRUE(Store(*id, plan[0].generation(), "train.index", File("index", "an index")).ok());
  v1::PlanReport report;
  report.set_job_id(*id);
  *report.mutable_resolved() = Job();
  report.mutable_resolved()->mutable_replicas()->set_threads(2);
  report.set_total_steps(3);
  report.add_notes("scale 1/255");
  v1::Ack ack;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(cluster_->ReportPlan(&context, report, &ack).ok());
  }

  const auto orders = worker.Await(v1::TRAIN, 2);
  ASSERT_EQ(orders.size(), 2u);
  EXPECT_THAT(orders[0].artifacts(), ElementsAre("train.index"));
  EXPECT_EQ(orders[0].generation_secret(), orders[1].generation_secret());
  EXPECT_EQ(orders[0].generation_secret().size(), 32u);
  std::vector<std::thread> ranks;
  ranks.reserve(orders.size());
  for (const v1::TrainerOrder& order : orders) {
    ranks.emplace_back([&, order] {
      v1::RendezvousRequest request;
      request.set_job_id(*id);
      request.set_generation(order.generation());
      request.set_rank(order.rank());
      request.mutable_endpoint()->set_address(absl::StrCat("127.0.0.1:", 1000 + order.rank()));
      (*request.mutable_environment())["torch"] = "2.11.0";
      v1::RendezvousResponse response;
      grpc::ClientContext context;
      SetDeadline(&context, absl::Seconds(20));
      const absl::Status met = FromGrpcStatus(cluster_->Rendezvous(&context, request, &response));
      EXPECT_TRUE(met.ok()) << met;
      ASSERT_EQ(response.endpoints_size(), 2);
      EXPECT_EQ(response.endpoints(1).address(), "127.0.0.1:1001");
    });
  }
  for (std::thread& rank : ranks) rank.join();

  auto& logs = *worker.report().add_logs();
  logs.set_job_id(*id);
  logs.set_generation(orders[0].generation());
  logs.set_text("hello\nthere\n");
  worker.Report();
  v1::ProgressReport progress;
  progress.set_job_id(*id);
  progress.set_generation(orders[0].generation());
  for (uint64_t step = 1; step <= 3; ++step) {
    v1::StepRecord& record = *progress.add_steps();
    record.set_step(step);
    record.set_state_hash(absl::StrCat("hash ", step));
    record.set_samples(16);
  }
  // Once more, as after an answer that was lost.
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext context;
    v1::ProgressAck durable;
    ASSERT_TRUE(cluster_->ReportProgress(&context, progress, &durable).ok());
    EXPECT_EQ(durable.durable_step(), 3u);
  }
  ASSERT_TRUE(Store(*id, orders[0].generation(), "trained.keras", File("trained", "first")).ok());
  ASSERT_TRUE(Store(*id, orders[0].generation(), "trained.keras", File("trained", "trained")).ok());
  v1::EndReport end;
  end.set_job_id(*id);
  end.set_generation(orders[0].generation());
  end.set_state(v1::DONE);
  end.mutable_result()->set_steps(3);
  {
    grpc::ClientContext context;
    ASSERT_TRUE(cluster_->ReportEnd(&context, end, &ack).ok());
  }
  EXPECT_EQ(State(*id), v1::DONE);
  EXPECT_EQ(Download(*id, "trained.keras").value(), "trained");
  EXPECT_EQ(Download(*id, "no such").status().code(), absl::StatusCode::kNotFound);

  httplib::Client http("http://" + server_->http_address());
  EXPECT_THAT(http.Get("/metrics")->body, HasSubstr(absl::StrCat("lockstep_job_steps_total{job=\"", *id, "\"} 3")));
  EXPECT_THAT(http.Get("/metrics")->body, HasSubstr("lockstep_rpc_total{"));
  EXPECT_THAT(http.Get("/")->body, HasSubstr(*id));
  EXPECT_EQ(http.Get("/healthz")->status, 200);

  // Its events, cut anywhere, also by a restart, have no gaps.
  const std::vector<v1::Event> whole = Watch(*id, 0);
  worker.HangUp();
  server_.reset();
  Start();
  for (const uint64_t after : {uint64_t{0}, uint64_t{3}, static_cast<uint64_t>(whole.size())}) {
    const std::vector<v1::Event> rest = Watch(*id, after);
    ASSERT_EQ(rest.size(), whole.size() - after);
    for (size_t i = 0; i < rest.size(); ++i) EXPECT_EQ(rest[i].SerializeAsString(), whole[after + i].SerializeAsString());
  }
  EXPECT_EQ(whole.back().state().state(), v1::DONE);
  EXPECT_EQ(Download(*id, "trained.keras").value(), "trained");
  grpc::ClientContext context;
  v1::LogsRequest request;
  request.set_job_id(*id);
  request.set_follow(true);
  const auto stream = client_->Logs(&context, request);
  v1::LogChunk chunk;
  std::string text;
  while (stream->Read(&chunk)) text += chunk.text();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(text, absl::StrCat(orders[0].generation(), ".0 hello\n", orders[0].generation(), ".0 there\n"));
}

TEST_F(Services, ABadJobIsRefusedWithEveryErrorAndLeavesNothing) {
  v1::Job job = Job();
  job.set_batch(0);
  job.mutable_data()->mutable_train()->set_folder("relative");
  const absl::Status refused = Submit(job, File("flowers.keras", "model")).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("batch:"));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("data.train:"));
  EXPECT_TRUE(server_->coordinator().List(10).empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "state/jobs"));
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "state/incoming"));
}

TEST_F(Services, ArtifactsAreTakenFromTheRightGenerationUnderPlainNamesOnly) {
  WorkerStream worker(*cluster_);
  const auto id = Submit(Job(), File("flowers.keras", "model"));
  ASSERT_TRUE(id.ok()) << id.status();
  const auto plan = worker.Await(v1::PLAN, 1);
  ASSERT_EQ(plan.size(), 1u);
  const std::string file = File("f", "contents");
  EXPECT_EQ(Store(*id, plan[0].generation() + 1, "train.index", file).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Store(*id, plan[0].generation(), "../log", file).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Store("jnone", 0, "train.index", file).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Download(*id, "train.index").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(Services, ADamagedArtifactIsNotPassedOn) {
  const auto id = Submit(Job(), File("flowers.keras", "model"));
  ASSERT_TRUE(id.ok()) << id.status();
  const auto artifact = server_->coordinator().FindArtifact(*id, "model.keras");
  std::ofstream(absl::StrCat(folder_.path(), "/state/jobs/", *id, "/", artifact->file)) << "mOdel";
  EXPECT_EQ(Download(*id, "model.keras").status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(Services, APortInUseIsSaid) {
  CoordinatorServer::Options options = Options();
  options.state_folder = folder_ / "another";
  options.rpc.listen = server_->rpc_address();
  EXPECT_EQ(CoordinatorServer::Start(options).status().code(), absl::StatusCode::kUnavailable);
  options.rpc.listen = "127.0.0.1:0";
  options.http_listen = server_->http_address();
  EXPECT_EQ(CoordinatorServer::Start(options).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace lockstep
