// The page and /metrics.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/metrics.h"
#include "coordinator/page.h"
#include "coordinator/testing_cluster.h"

namespace lockstep {
namespace {

using testing::HasSubstr;
using testing::Not;

Snapshot OneOfEach() {
  Snapshot snapshot;
  snapshot.jobs_by_state[v1::RUNNING] = 1;
  snapshot.jobs_by_state[v1::DONE] = 41;
  Snapshot::JobFigures running;
  running.samples = 32;
  running.phases.set_backward(2.5);
  v1::JobStatus& status = running.status;
  status.set_job_id("j0000001");
  status.mutable_job()->set_name("<script>alert(1)</script>");
  status.set_state(v1::RUNNING);
  status.set_generation(3);
  status.set_total_steps(10);
  *status.mutable_latest() = StepOf(4, 3);
  v1::ReplicaStatus& replica = *status.add_replicas();
  (*replica.mutable_memory()->mutable_bytes_by_category())["gradients"] = 77;
  replica.mutable_memory()->set_resident_bytes(99);
  (*status.mutable_profile()->mutable_bytes_by_category())["gradients"] = 78;
  snapshot.jobs.push_back(running);
  for (int i = 0; i < 41; ++i) {
    snapshot.jobs.emplace_back().status.set_job_id(absl::StrCat("done", i));
    snapshot.jobs.back().status.set_state(v1::DONE);
  }
  v1::WorkerStatus& worker = snapshot.workers.emplace_back();
  worker.set_worker_id("w&1");
  worker.set_state("connected");
  worker.set_free_slots(2);
  worker.set_memory_bytes(1000);
  snapshot.booked_bytes["w&1"] = 600;
  return snapshot;
}

TEST(Metrics, SayTheStateAndTheCalls) {
  RpcCounters counters;
  counters.Count("Submit", absl::StatusCode::kOk);
  counters.Count("Submit", absl::StatusCode::kInvalidArgument);
  const std::string text = MetricsText(OneOfEach(), counters);
  for (const char* line :
       {"lockstep_jobs{state=\"RUNNING\"} 1", "lockstep_jobs{state=\"PAUSED\"} 0", "lockstep_workers{state=\"lost\"} 0",
        "lockstep_free_slots 2", "lockstep_store_healthy 1", "lockstep_job_steps_total{job=\"j0000001\"} 4",
        "lockstep_job_samples_total{job=\"j0000001\"} 32", "lockstep_job_generation{job=\"j0000001\"} 3",
        "lockstep_job_step_seconds_total{job=\"j0000001\",phase=\"backward\"} 2.5",
        "lockstep_trainer_memory_bytes{job=\"j0000001\",rank=\"0\",category=\"gradients\"} 77",
        "lockstep_job_memory_predicted_bytes{job=\"j0000001\",category=\"gradients\"} 78",
        "lockstep_worker_memory_offered_bytes{worker=\"w&1\"} 1000", "lockstep_worker_memory_booked_bytes{worker=\"w&1\"} 600",
        "lockstep_trainer_resident_bytes{job=\"j0000001\",rank=\"0\"} 99",
        "lockstep_rpc_total{code=\"INVALID_ARGUMENT\",method=\"Submit\"} 1"}) {
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\n", line))) << text;
  }
  EXPECT_THAT(text, Not(HasSubstr("lockstep_process_resident_bytes 0")));
}

TEST(Metrics, WhatIsPlannedForADeviceHasAFamilyOfItsOwn) {
  RpcCounters counters;
  Snapshot snapshot = OneOfEach();
  for (const char* id : {"a", "b"}) {
    v1::JobStatus& status = snapshot.jobs.emplace(snapshot.jobs.begin())->status;
    status.set_job_id(id);
    status.set_state(v1::DONE);
    (*status.mutable_profile()->mutable_bytes_by_category())["gradients"] = 500;
    (*status.mutable_profile()->mutable_host()->mutable_bytes_by_category())["runtime"] = 40;
  }
  const std::string text = MetricsText(snapshot, counters);
  for (const char* id : {"a", "b"}) {
    EXPECT_THAT(text,
                HasSubstr(absl::StrCat("\nlockstep_job_device_memory_predicted_bytes{job=\"", id, "\",category=\"gradients\"} 500\n")));
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\nlockstep_job_memory_predicted_bytes{job=\"", id, "\",category=\"runtime\"} 40\n")));
    EXPECT_THAT(text, Not(HasSubstr(absl::StrCat("lockstep_job_memory_predicted_bytes{job=\"", id, "\",category=\"gradients\"}"))));
  }
  const std::string type = "# TYPE lockstep_job_device_memory_predicted_bytes ";
  EXPECT_EQ(text.find(type), text.rfind(type)) << "a family is told once";
}

TEST(Metrics, SeriesOfEndedJobsAreBounded) {
  RpcCounters counters;
  const std::string text = MetricsText(OneOfEach(), counters);
  EXPECT_THAT(text, HasSubstr("job=\"done19\""));
  EXPECT_THAT(text, Not(HasSubstr("job=\"done20\"")));
}

TEST(Metrics, TheDocumentationNamesThemAllAndNoOther) {
  std::ifstream file(absl::StrCat(LOCKSTEP_SOURCE, "/docs/metrics.md"));
  std::stringstream page;
  page << file.rdbuf();
  const std::string document = page.str();
  const size_t at = document.find("## The coordinator's");
  ASSERT_NE(at, std::string::npos);
  const std::string section = document.substr(at);
  std::set<std::string> documented, served;
  const std::regex row("\\n\\| `(lockstep_[a-z_]+)`");
  for (std::sregex_iterator match(section.begin(), section.end(), row), end; match != end; ++match) documented.insert((*match)[1]);
  RpcCounters counters;
  counters.Count("List", absl::StatusCode::kOk);
  Snapshot snapshot = OneOfEach();
  v1::MemoryProfile& of_device = *snapshot.jobs.emplace(snapshot.jobs.begin())->status.mutable_profile();
  (*of_device.mutable_bytes_by_category())["gradients"] = 500;
  of_device.mutable_host();
  for (const absl::string_view line : absl::StrSplit(MetricsText(snapshot, counters), '\n')) {
    if (absl::StartsWith(line, "# TYPE ")) served.insert(std::vector<std::string>(absl::StrSplit(line, ' '))[2]);
  }
  EXPECT_EQ(documented, served);
}

TEST(Page, ShowsJobsAndWorkersAndEscapesWhatPeopleWrote) {
  Snapshot snapshot = OneOfEach();
  const std::string page = Page(snapshot, "1.2.3", absl::FromUnixSeconds(0));
  EXPECT_THAT(page, HasSubstr("&lt;script&gt;alert(1)&lt;/script&gt;"));
  EXPECT_THAT(page, Not(HasSubstr("<script>")));
  EXPECT_THAT(page, HasSubstr("w&amp;1"));
  EXPECT_THAT(page, HasSubstr("4 of 10"));
  EXPECT_THAT(page, Not(HasSubstr("cannot be written")));
  snapshot.durable = false;
  EXPECT_THAT(Page(snapshot, "1.2.3", absl::FromUnixSeconds(0)), HasSubstr("The store cannot be written"));
  EXPECT_THAT(Page(Snapshot(), "1.2.3", absl::FromUnixSeconds(0)), HasSubstr("None yet"));
}

}  // namespace
}  // namespace lockstep
