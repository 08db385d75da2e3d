// Real programs of one version meet a stranger of another: the coordinator a worker, and a worker the coordinator.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "coordinator/server.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/lockstep.grpc.pb.h"
#include "rpc/channel.h"
#include "worker/test_worker.h"

namespace lockstep {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr char kToken[] = "test-token";
constexpr char kStranger[] = "9.8.7";
constexpr absl::Duration kDeadline = absl::Seconds(30);

TEST(Version, TheCoordinatorRefusesAWorkerOfAnotherByNameAndTakesItsOwn) {
  const TestFolder folder;
  const std::string ready = folder / "ready";
  TestProcess coordinator({LOCKSTEP_COORDINATOR_PROGRAM, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--state-dir",
                           folder / "state", "--ready-file", ready},
                          {absl::StrCat("LOCKSTEP_TOKEN=", kToken)}, folder / "log");
  ASSERT_TRUE(Eventually([&] { return std::filesystem::exists(ready); })) << coordinator.Log();
  const std::string address = nlohmann::json::parse(*ReadFile(ready)).at("grpc");
  const auto channel = MakeChannel(address, {.token = kToken});

  grpc::ClientContext context;
  SetDeadline(&context, kDeadline);
  const auto stream = v1::Cluster::NewStub(channel)->Attend(&context);
  v1::WorkerReport report;
  report.set_worker_id("stranger-1");
  report.set_version(kStranger);
  report.set_host("a-host");
  report.set_slots(1);
  report.set_cores(1);
  report.set_address("127.0.0.1");
  report.set_sequence(1);
  stream->Write(report);
  v1::WorkerOrders orders;
  EXPECT_FALSE(stream->Read(&orders)) << "a stranger is told nothing";
  const grpc::Status refused = stream->Finish();
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused.error_message(), AllOf(HasSubstr("stranger-1"), HasSubstr("a-host"), HasSubstr(absl::StrCat("version ", kStranger)),
                                             HasSubstr(absl::StrCat("version ", LOCKSTEP_VERSION))));

  const TestWorker worker(address, folder / "worker");
  const auto client = v1::Lockstep::NewStub(channel);
  v1::ListWorkersResponse workers;
  EXPECT_TRUE(Eventually([&] {
    grpc::ClientContext call;
    SetDeadline(&call, kDeadline);
    return client->ListWorkers(&call, {}, &workers).ok() && workers.workers_size() > 0;
  }));
  ASSERT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).version(), LOCKSTEP_VERSION);
  coordinator.Signal(SIGTERM);
  EXPECT_EQ(coordinator.Wait(), 0) << coordinator.Log();
}

TEST(Version, AWorkerThatACoordinatorOfAnotherRefusesSaysSoAndEnds) {
  const TestFolder folder;
  CoordinatorServer::Options options;
  options.state_folder = folder / "state";
  options.rpc = {.listen = "127.0.0.1:0", .token = kToken};
  options.http_listen = "127.0.0.1:0";
  options.coordinator.version = kStranger;
  const auto server = CoordinatorServer::Start(options);
  ASSERT_TRUE(server.ok()) << server.status();
  TestWorker worker((*server)->rpc_address(), folder / "worker");
  EXPECT_EQ(worker.Wait(), 2);
  EXPECT_THAT(worker.Log(), AllOf(HasSubstr("refuses this worker"), HasSubstr(absl::StrCat("version ", kStranger)),
                                  HasSubstr(absl::StrCat("version ", LOCKSTEP_VERSION))));
}

}  // namespace
}  // namespace lockstep
