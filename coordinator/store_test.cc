#include "coordinator/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "coordinator/store_database.h"
#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

// What came with version 4.
constexpr char kWithoutVersion4[] =
    "ALTER TABLE jobs DROP COLUMN pause_wanted; ALTER TABLE jobs DROP COLUMN scale; ALTER TABLE generations DROP COLUMN waits;";

using testing::HasSubstr;

// What a kill -9 at this moment leaves, opened by another coordinator.
std::string StateAfterAKill(const TestingCluster& cluster) {
  TestFolder copy;
  for (const char* file : {"store.sqlite", "store.sqlite-wal"}) {
    std::filesystem::copy_file(cluster.folder() / file, copy / file);
  }
  const auto store = Store::Open(copy / "store.sqlite");
  EXPECT_TRUE(store.ok()) << store.status();
  const ManualClock clock;
  const auto coordinator = Coordinator::Create(cluster.options(), **store, clock);
  EXPECT_TRUE(coordinator.ok()) << coordinator.status();
  return DurableState(**coordinator);
}

TEST(Store, WhatACallAnsweredIsThereAfterAKillAtAnyPointBetweenCalls) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  std::string a, b;
  const std::function<void()> calls[] = {[&] { a = cluster.Submit(SmallJob()); },
                                         [&] { EXPECT_TRUE(worker.Attend().ok()); },
                                         [&] { worker.Obey(); },
                                         [&] {
                                           EXPECT_TRUE(cluster->StoreArtifact(a, 0, {"train.index", "train.index.1", 5, "1"}).ok());
                                         },
                                         [&] { b = cluster.Submit(SmallJob()); },
                                         [&] { EXPECT_TRUE(cluster.Plan(a).ok()); },
                                         [&] { worker.Obey(); },
                                         [&] { EXPECT_TRUE(cluster.Progress(a, 1, 1, 2).ok()); },
                                         [&] { EXPECT_TRUE(cluster.Progress(a, 1, 2, 3).ok()); },
                                         [&] { worker.TrainerEnds(a, 0, 0, 9); },
                                         [&] { cluster.Pass(absl::Seconds(2)); },
                                         [&] { worker.Obey(), worker.Obey(); },
                                         [&] { EXPECT_TRUE(cluster->Cancel(b).ok()); },
                                         [&] {
                                           EXPECT_TRUE(cluster->StoreArtifact(a, 2, {"trained.keras", "trained.keras.1", 5, "1"}).ok());
                                         },
                                         [&] {
                                           EXPECT_TRUE(cluster->StoreArtifact(a, 2, {"trained.keras", "trained.keras.2", 6, "2"}).ok());
                                         },
                                         [&] { EXPECT_TRUE(cluster.Progress(a, 2, 1, 3).ok()); },
                                         [&] { EXPECT_TRUE(cluster.End(a, 2, v1::DONE).ok()); }};
  int at = 0;
  std::string before;
  for (const auto& call : calls) {
    SCOPED_TRACE(absl::StrCat("call ", at++));
    call();
    const std::string now = DurableState(cluster.coordinator());
    EXPECT_EQ(StateAfterAKill(cluster), now);
  }
  EXPECT_EQ(cluster.State(a), v1::DONE);
  EXPECT_EQ(cluster.State(b), v1::CANCELLED);
  EXPECT_EQ(cluster.Status(a).generation(), 2u);
  EXPECT_EQ(cluster->FindArtifact(a, "trained.keras")->file, "trained.keras.2");
}

// From now on no file of this process grows, as on a full disk.
class FullDisk {
 public:
  FullDisk() {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit none = {0, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &none);
  }
  ~FullDisk() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST(Store, AFailedWritePoisonsAcknowledgingAndReadsGoOn) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  const std::string job = cluster.Submit(SmallJob());
  worker.Obey();
  ASSERT_TRUE(cluster.Plan(job).ok());
  worker.Obey();
  ASSERT_TRUE(cluster.Progress(job, 1, 1, 2).ok());
  const std::string before = DurableState(cluster.coordinator());
  absl::Status failed;
  {
    const FullDisk full;
    failed = cluster.Progress(job, 1, 3, 3);
  }
  EXPECT_EQ(failed.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(failed.message(), HasSubstr("must be restarted"));
  // There is room again, and still nobody knows what the disk holds.
  EXPECT_EQ(cluster.Progress(job, 1, 3, 3).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cluster->Submit(cluster->NewJobId(), "", SmallJob(), ModelOf(SmallJob())).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cluster->Cancel(job).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cluster.End(job, 1, v1::DONE).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(cluster->TakeSnapshot().durable);
  const uint64_t acknowledged = worker.Orders().acknowledged_sequence();
  worker.report().mutable_trainers(0)->set_ended(true);
  worker.report().mutable_trainers(0)->set_signal(9);
  EXPECT_EQ(worker.Report().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(worker.Orders().acknowledged_sequence(), acknowledged) << "a trainer's end that is not durable is not acknowledged";
  EXPECT_EQ(DurableState(cluster.coordinator()), before);
  cluster.Restart();
  EXPECT_EQ(DurableState(cluster.coordinator()), before);
  EXPECT_TRUE(cluster->TakeSnapshot().durable);
  EXPECT_TRUE(cluster.Progress(job, 1, 3, 3).ok());
}

TEST(Store, AnotherFileIsNoStore) {
  const TestFolder folder;
  std::ofstream(folder / "store.sqlite") << std::string(4096, 'x');
  const auto store = Store::Open(folder / "store.sqlite");
  EXPECT_EQ(store.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(store.status().message(), HasSubstr(folder.path()));
  EXPECT_EQ(Store::Open(folder / "none/store.sqlite").status().code(), absl::StatusCode::kPermissionDenied);
}

TEST(Store, ALaterVersionsFileIsLeftAlone) {
  const TestFolder folder;
  ASSERT_TRUE(Store::Open(folder / "store.sqlite").ok());
  auto database = Database::Open(folder / "store.sqlite");
  ASSERT_TRUE(database.ok());
  ASSERT_TRUE(database->Execute("PRAGMA user_version=5").ok());
  const auto store = Store::Open(folder / "store.sqlite");
  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(store.status().message(), HasSubstr("schema is version 5, this program knows up to 4"));
}

TEST(Store, TheFirstVersionsFileGoesOn) {
  TestingCluster cluster;
  const std::string job = cluster.Submit(SmallJob());
  const std::string before = DurableState(cluster.coordinator());
  const std::string path = cluster.folder() / "store.sqlite";
  {
    auto database = Database::Open(path);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database
                    ->Execute(absl::StrCat(kWithoutVersion4,
                                           "ALTER TABLE jobs DROP COLUMN request_id; ALTER TABLE members DROP COLUMN process_generation;"
                                           "ALTER TABLE members DROP COLUMN process_rank; PRAGMA user_version=1"))
                    .ok());
  }
  cluster.Restart();
  EXPECT_EQ(DurableState(cluster.coordinator()), before);
  const std::string named = *cluster->Submit(cluster->NewJobId(), "r", SmallJob(), ModelOf(SmallJob()));
  cluster.Restart();
  EXPECT_EQ(**cluster->FindSubmitted("r", SmallJob()), named);
}

TEST(Store, ARunningJobOfTheSecondVersionGoesOn) {
  TestingCluster cluster;
  FakeWorker worker(cluster, "w1");
  ASSERT_TRUE(worker.Attend().ok());
  const std::string job = cluster.Submit(SmallJob());
  worker.Obey();
  ASSERT_TRUE(cluster.Plan(job).ok());
  worker.Obey();
  {
    auto database = Database::Open(cluster.folder() / "store.sqlite");
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(
        database
            ->Execute(absl::StrCat(kWithoutVersion4,
                                   "ALTER TABLE members DROP COLUMN process_generation; ALTER TABLE members DROP COLUMN process_rank;"
                                   "PRAGMA user_version=2"))
            .ok());
  }
  cluster.Restart();
  ASSERT_TRUE(worker.Attend().ok());
  ASSERT_EQ(worker.Orders().trainers_size(), 2);
  EXPECT_EQ(worker.Orders().trainers(1).generation(), 1u);
  EXPECT_EQ(worker.Orders().trainers(1).rank(), 1u);
  EXPECT_EQ(cluster.Status(job).replicas(1).state(), "running") << "the trainer that runs is the one of the order";
}

TEST(Store, TheThirdVersionsFileGoesOn) {
  TestingCluster cluster;
  const std::string job = cluster.Submit(SmallJob());
  {
    auto database = Database::Open(cluster.folder() / "store.sqlite");
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE(database->Execute(absl::StrCat(kWithoutVersion4, "PRAGMA user_version=3")).ok());
  }
  cluster.Restart();
  v1::Replicas wanted;
  wanted.set_min(1);
  wanted.set_max(3);
  EXPECT_TRUE(cluster->Scale(job, wanted).ok());
}

TEST(Store, AGenerationsNumberIsNeverWrittenTwice) {
  const TestFolder folder;
  const auto store = Store::Open(folder / "store.sqlite");
  ASSERT_TRUE(store.ok());
  Change change;
  change.job_id = "j1";
  change.generation.emplace().number = 4;
  EXPECT_TRUE((*store)->Apply(change).ok());
  EXPECT_FALSE((*store)->Apply(change).ok());
}

}  // namespace
}  // namespace lockstep
