// A whole coordinator in process, spoken to over its ports.
#include "coordinator/server.h"

#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <signal.h>
#include <sys/resource.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "coordinator/testing_cluster.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/lockstep.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/file_stream.h"
#include "rpc/status.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

constexpr char kToken[] = "a token for tests";
constexpr absl::Duration kDeadline = absl::Seconds(30);

class ServerTest : public testing::Test {
 protected:
  ServerTest() { Start(); }

  CoordinatorServer::Options Options() const {
    CoordinatorServer::Options options;
    options.state_folder = scratch_ / "state";
    options.rpc = {.listen = "127.0.0.1:0", .token = kToken};
    options.http_listen = "127.0.0.1:0";
    options.coordinator.version = kTestVersion;
    return options;
  }

  void Start() {
    InitLogging("test", LogLevel::kError);
    auto server = CoordinatorServer::Start(Options());
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    channel_ = MakeChannel(server_->rpc_address(), {.token = kToken});
    client_ = v1::Lockstep::NewStub(channel_);
    cluster_ = v1::Cluster::NewStub(channel_);
  }

  std::string FileWith(const std::string& contents) {
    std::string path = scratch_ / absl::StrCat("file", files_.fetch_add(1));
    std::ofstream(path, std::ios::binary) << contents;
    return path;
  }

  // Submits with `announced` in the job and `sent` as the model.
  absl::StatusOr<std::string> Submit(v1::Job job, const std::string& announced, const std::string& sent, const std::string& name = "") {
    const FileDigest digest = *DigestFile(FileWith(announced));
    job.mutable_model()->set_size_bytes(digest.bytes);
    job.mutable_model()->set_xxh3_128(digest.xxh3_128);
    return Send(job, FileWith(sent), name);
  }

  absl::StatusOr<std::string> Send(const v1::Job& job, const std::string& model, const std::string& name) {
    grpc::ClientContext context;
    SetDeadline(&context, kDeadline);
    v1::SubmitResponse response;
    const auto stream = client_->Submit(&context, &response);
    v1::SubmitRequest request;
    *request.mutable_job() = job;
    request.set_request_id(name);
    stream->Write(request);
    SendFile(model, [&](const v1::Chunk& chunk) {
      *request.mutable_model() = chunk;
      return stream->Write(request);
    }).IgnoreError();
    stream->WritesDone();
    if (const grpc::Status status = stream->Finish(); !status.ok()) return FromGrpcStatus(status);
    return response.job_id();
  }

  absl::Status Store(const std::string& job, uint64_t generation, const std::string& name, const std::string& contents) {
    grpc::ClientContext context;
    SetDeadline(&context, kDeadline);
    v1::StoreArtifactResponse ack;
    const auto stream = cluster_->StoreArtifact(&context, &ack);
    v1::StoreArtifactRequest request;
    request.mutable_header()->set_job_id(job);
    request.mutable_header()->set_generation(generation);
    request.mutable_header()->set_artifact(name);
    stream->Write(request);
    SendFile(FileWith(contents), [&](const v1::Chunk& chunk) {
      *request.mutable_chunk() = chunk;
      return stream->Write(request);
    }).IgnoreError();
    stream->WritesDone();
    return FromGrpcStatus(stream->Finish());
  }

  absl::StatusOr<std::string> Download(const std::string& job, const std::string& name) {
    grpc::ClientContext context;
    SetDeadline(&context, kDeadline);
    v1::DownloadRequest request;
    request.set_job_id(job);
    request.set_artifact(name);
    const auto stream = client_->Download(&context, request);
    const std::string path = scratch_ / absl::StrCat("download", files_.fetch_add(1));
    const auto received = ReceiveFile(path, [&](v1::Chunk* chunk) { return stream->Read(chunk); });
    if (const grpc::Status status = stream->Finish(); !status.ok()) return FromGrpcStatus(status);
    if (!received.ok()) return received.status();
    std::ifstream file(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }

  v1::JobStatus Describe(const std::string& job) {
    grpc::ClientContext context;
    SetDeadline(&context, kDeadline);
    v1::DescribeRequest request;
    request.set_job_id(job);
    v1::JobStatus status;
    EXPECT_TRUE(client_->Describe(&context, request, &status).ok());
    return status;
  }

  // A worker's stream, with its first report sent.
  struct Stream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::WorkerReport, v1::WorkerOrders>> stream;
  };
  std::unique_ptr<Stream> Attend(const std::string& version = kTestVersion) {
    auto attend = std::make_unique<Stream>();
    SetDeadline(&attend->context, kDeadline);
    attend->stream = cluster_->Attend(&attend->context);
    v1::WorkerReport report;
    report.set_worker_id("w1");
    report.set_host("here");
    report.set_version(version);
    report.set_slots(2);
    report.set_cores(2);
    report.set_sequence(1);
    attend->stream->Write(report);
    return attend;
  }

  const TestFolder scratch_;
  std::atomic<int> files_ = 0;
  std::unique_ptr<CoordinatorServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Lockstep::Stub> client_;
  std::unique_ptr<v1::Cluster::Stub> cluster_;
};

// Calls any method with one empty message.
grpc::StatusCode CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(10));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, method, &queue);
  const grpc::Slice slice;
  int start = 0, write = 0, finish = 0;
  grpc::Status status;
  call->StartCall(&start);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), {}, &write);
  queue.Next(&tag, &ok);
  call->Finish(&status, &finish);
  queue.Next(&tag, &ok);
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) continue;
  return status.error_code();
}

TEST_F(ServerTest, EveryMethodOfBothServicesRefusesCallersWithoutTheToken) {
  const auto wrong = MakeChannel(server_->rpc_address(), {.token = "another token"});
  const auto none = grpc::CreateChannel(server_->rpc_address(), grpc::InsecureChannelCredentials());
  int methods = 0;
  for (const google::protobuf::FileDescriptor* file : {v1::SubmitRequest::descriptor()->file(), v1::WorkerReport::descriptor()->file()}) {
    ASSERT_EQ(file->service_count(), 1);
    const google::protobuf::ServiceDescriptor& service = *file->service(0);
    for (int i = 0; i < service.method_count(); ++i, ++methods) {
      const std::string name = absl::StrCat("/", service.full_name(), "/", service.method(i)->name());
      EXPECT_EQ(CallRaw(wrong, name), grpc::StatusCode::UNAUTHENTICATED) << name;
      EXPECT_EQ(CallRaw(none, name), grpc::StatusCode::UNAUTHENTICATED) << name;
    }
  }
  EXPECT_GE(methods, 16);
  // The same call with the token gets as far as what it asks.
  EXPECT_EQ(CallRaw(channel_, "/lockstep.v1.Lockstep/Submit"), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ServerTest, AModelComesBackAsItWasSentAlsoAfterARestart) {
  const std::string model(3'000'000, 'm');
  const auto job = Submit(SmallJob(), model, model);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(*Download(*job, "model.keras"), model);
  const auto missing = Download(*job, "best.keras");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("has no artifact \"best.keras\"; it has model.keras"));
  const std::string before = Describe(*job).DebugString();
  server_.reset();
  Start();
  EXPECT_EQ(Describe(*job).DebugString(), before);
  EXPECT_EQ(*Download(*job, "model.keras"), model);
}

TEST_F(ServerTest, ASubmissionThatIsMadeAgainIsOneJobWithOneModel) {
  const std::string model(3'000'000, 'm');
  const auto job = Submit(SmallJob(), model, model, "r1");
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(*Submit(SmallJob(), model, model, "r1"), *job);
  server_.reset();
  Start();
  EXPECT_EQ(*Submit(SmallJob(), model, model, "r1"), *job);
  std::vector<std::future<absl::StatusOr<std::string>>> attempts;
  attempts.reserve(8);
  for (int i = 0; i < 8; ++i) attempts.push_back(std::async(std::launch::async, [&] { return Submit(SmallJob(), model, model, "r2"); }));
  std::set<std::string> ids;
  for (auto& attempt : attempts) ids.insert(*attempt.get());
  EXPECT_EQ(ids.size(), 1u) << "at the same time, too";
  size_t models = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(scratch_ / "state/jobs")) models += entry.is_regular_file();
  EXPECT_EQ(models, 2u);
  EXPECT_TRUE(std::filesystem::is_empty(scratch_ / "state/incoming"));
}

TEST_F(ServerTest, ADiskWithoutRoomForAModelIsTheCoordinatorsTroubleAndNotTheMemorys) {
  signal(SIGXFSZ, SIG_IGN);
  const std::string model(3'000'000, 'm');
  const std::string announced = FileWith(model);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {2'000'000, before.rlim_max};
  v1::Job job = SmallJob();
  const FileDigest digest = *DigestFile(announced);
  job.mutable_model()->set_size_bytes(digest.bytes);
  job.mutable_model()->set_xxh3_128(digest.xxh3_128);
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status refused = Send(job, announced, "").status();
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(refused.message(), HasSubstr("the coordinator cannot store the model: cannot write "));
  EXPECT_TRUE(std::filesystem::is_empty(scratch_ / "state/incoming"));
  EXPECT_TRUE(Submit(SmallJob(), model, model).ok()) << "there is room again";
}

TEST_F(ServerTest, AModelThatIsNotTheAnnouncedOneIsRefusedAndNothingStays) {
  EXPECT_EQ(Submit(SmallJob(), "announced", "sent this").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Submit(SmallJob(), "short", "much longer than announced").status().code(), absl::StatusCode::kInvalidArgument);
  v1::Job escaping = SmallJob();
  escaping.mutable_model()->set_file_name("../../x.keras");
  EXPECT_EQ(Submit(escaping, "model", "model").status().code(), absl::StatusCode::kInvalidArgument);
  v1::ListResponse list;
  grpc::ClientContext context;
  EXPECT_TRUE(client_->List(&context, {}, &list).ok());
  EXPECT_EQ(list.jobs_size(), 0);
  EXPECT_TRUE(std::filesystem::is_empty(scratch_ / "state/incoming"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(scratch_ / "state/jobs")) {
    EXPECT_FALSE(entry.is_regular_file()) << entry.path();
  }
}

TEST_F(ServerTest, ArtifactsAreReplacedWholeAndStayInTheirFolder) {
  const std::string job = *Submit(SmallJob(), "model", "model");
  const auto attend = Attend();
  v1::WorkerOrders orders;
  while (orders.trainers().empty()) ASSERT_TRUE(attend->stream->Read(&orders));
  const uint64_t generation = orders.trainers(0).generation();
  std::set<std::string> before;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(scratch_.path())) before.insert(entry.path().string());
  for (const char* name : {"../escaped", "/tmp/escaped", "a/b", ".hidden", "", "..", "a\nb"}) {
    EXPECT_EQ(Store(job, generation, name, "x").code(), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_EQ(Store(job, generation + 1, "train.index", "x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Store("j0000000", generation, "train.index", "x").code(), absl::StatusCode::kNotFound);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(scratch_ / "state")) {
    EXPECT_TRUE(before.count(entry.path().string()) > 0) << entry.path();
  }
  ASSERT_TRUE(Store(job, generation, "train.index", "first").ok());
  ASSERT_TRUE(Store(job, generation, "train.index", "second").ok());
  EXPECT_EQ(*Download(job, "train.index"), "second");
  int indexes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(scratch_ / absl::StrCat("state/jobs/", job))) {
    if (entry.path().filename().string().rfind("train.index", 0) != 0) continue;
    ++indexes;
    std::ofstream(entry.path()) << "sexond";
  }
  EXPECT_EQ(indexes, 1) << "what was replaced is gone";
  EXPECT_EQ(Download(job, "train.index").status().code(), absl::StatusCode::kDataLoss) << "damaged on the disk";
  attend->context.TryCancel();
}

TEST_F(ServerTest, AWorkerOfAnotherVersionIsToldWhich) {
  const auto attend = Attend("0.9");
  v1::WorkerOrders orders;
  EXPECT_FALSE(attend->stream->Read(&orders));
  const grpc::Status refused = attend->stream->Finish();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), HasSubstr("worker w1 on here is of version 0.9"));
}

TEST_F(ServerTest, OneStateFolderHasOneCoordinator) {
  const auto second = CoordinatorServer::Start(Options());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.status().message(), HasSubstr("in use by another coordinator"));
}

TEST_F(ServerTest, PageMetricsAndHealth) {
  ASSERT_TRUE(Submit(SmallJob(), "model", "model").ok());
  httplib::Client http(absl::StrCat("http://", server_->http_address()));
  const auto page = http.Get("/");
  ASSERT_TRUE(page);
  EXPECT_EQ(page->status, 200);
  EXPECT_THAT(page->body, HasSubstr("waiting to plan"));
  const auto metrics = http.Get("/metrics");
  ASSERT_TRUE(metrics);
  EXPECT_THAT(metrics->body, HasSubstr("lockstep_jobs{state=\"SUBMITTED\"} 1"));
  EXPECT_THAT(metrics->body, HasSubstr("lockstep_rpc_total{code=\"OK\",method=\"Submit\"} 1"));
  const auto health = http.Get("/healthz");
  ASSERT_TRUE(health);
  EXPECT_EQ(health->body, "ok\n");
  EXPECT_EQ(http.Get("/state/lock")->status, 404);
  CoordinatorServer::Options open = Options();
  open.state_folder = scratch_ / "other";
  open.http_listen = "0.0.0.0:0";
  EXPECT_EQ(CoordinatorServer::Start(open).status().code(), absl::StatusCode::kInvalidArgument);
  open.http_listen = server_->http_address();
  EXPECT_EQ(CoordinatorServer::Start(open).status().code(), absl::StatusCode::kUnavailable) << "a port in use";
}

TEST_F(ServerTest, DrainingEndsEveryStreamSoonAndRetryably) {
  const std::string job = *Submit(SmallJob(), "model", "model");
  const auto attend = Attend();
  v1::WorkerOrders orders;
  ASSERT_TRUE(attend->stream->Read(&orders));
  grpc::ClientContext context;
  SetDeadline(&context, kDeadline);
  v1::WatchRequest request;
  request.set_job_id(job);
  const auto watch = client_->Watch(&context, request);
  v1::Event event;
  ASSERT_TRUE(watch->Read(&event));
  auto watched = std::async(std::launch::async, [&] {
    while (watch->Read(&event)) continue;
    return watch->Finish();
  });
  auto attended = std::async(std::launch::async, [&] {
    while (attend->stream->Read(&orders)) continue;
    return attend->stream->Finish();
  });
  server_.reset();
  EXPECT_EQ(watched.get().error_code(), grpc::StatusCode::UNAVAILABLE);
  const grpc::StatusCode code = attended.get().error_code();
  EXPECT_TRUE(code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::CANCELLED) << code;
}

}  // namespace
}  // namespace lockstep
