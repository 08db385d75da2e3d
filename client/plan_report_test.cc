#include "client/plan_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/describe.h"
#include "client/proto_json.h"

namespace lockstep {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kMiB = 1 << 20;

v1::JobStatus Planned() {
  v1::JobStatus status;
  status.set_job_id("j1");
  status.set_state(v1::DONE);
  status.set_reason("planned");
  v1::Job& job = *status.mutable_job();
  job.mutable_model()->set_file_name("m.keras");
  job.set_batch(64);
  *status.mutable_resolved() = job;
  status.mutable_resolved()->set_virtual_replicas(8);
  status.mutable_resolved()->set_micro_batch(4);
  status.mutable_resolved()->mutable_replicas()->set_max(2);
  status.add_plan_notes("scale 1/255");
  v1::MemoryProfile& profile = *status.mutable_profile();
  (*profile.mutable_bytes_by_category())["runtime"] = 100 * kMiB;
  (*profile.mutable_bytes_by_category())["parameters"] = 300 * kMiB;
  profile.set_peak_bytes(200 * kMiB);
  profile.set_bytes_per_further_thread(100 * kMiB);
  profile.set_resident_bytes(400 * kMiB);
  profile.set_expected_resident_bytes(330 * kMiB);
  profile.set_threads(2);
  profile.set_at_peak("backward conv1");
  return status;
}

v1::Remedy& AddRemedy(v1::JobStatus& status, const char* name, const char* text, uint64_t bytes, double time, bool applied) {
  v1::Remedy& remedy = *status.mutable_profile()->add_remedies();
  remedy.set_name(name);
  remedy.set_text(text);
  remedy.set_resident_bytes(bytes);
  remedy.set_time_ratio(time);
  remedy.set_applied(applied);
  return remedy;
}

TEST(RenderPlan, WithoutALimitOrRemedies) {
  EXPECT_EQ(RenderPlan(Planned()),
            "m.keras: batch 64 as 8 virtual replicas of 8 samples (4 at once), 2 side by side in each of 2 trainers\n"
            "Predicted memory of one trainer at its peak, by category\n"
            "  parameters              300 MiB  75.0 %\n"
            "  runtime                 100 MiB  25.0 %\n"
            "  in all                  400 MiB\n"
            "  expected                330 MiB\n"
            "  limit                      none\n"
            "  2 trainers on one host  800 MiB\n"
            "At the peak: backward conv1\n"
            "Tensors take 300 MiB of it; each virtual replica at a time 100 MiB\n"
            "Note: scale 1/255\n"
            "It fits.");
}

TEST(RenderPlan, WithALimitAndRemediesThatMakeItFit) {
  v1::JobStatus status = Planned();
  status.mutable_job()->mutable_memory()->set_limit_bytes(512 * kMiB);
  status.mutable_profile()->set_limit_bytes(512 * kMiB);
  status.mutable_profile()->set_largest_batch(96);
  AddRemedy(status, "threads", "1 virtual replica at a time instead of 2", 400 * kMiB, 1.8, true);
  AddRemedy(status, "recompute", "", 350 * kMiB, 0, false);
  AddRemedy(status, "micro_batch", "micro-batches of 4", 300 * kMiB, 2, false).set_changes_bits(true);
  EXPECT_THAT(RenderPlan(status), HasSubstr("\n  limit                   512 MiB\n"));
  EXPECT_THAT(RenderPlan(status), HasSubstr("The largest batch that fits: 96, with 8 virtual replicas\n"
                                            "Remedies, each with those before it\n"
                                            "   MEMORY  STEP TIME  REMEDY\n"
                                            "  400 MiB      1.80x  1 virtual replica at a time instead of 2 (applied)\n"
                                            "  350 MiB  not known  recompute\n"
                                            "  300 MiB      2.00x  micro-batches of 4 (changes bits)\n"));
  EXPECT_THAT(RenderPlan(status), testing::EndsWith("It fits, with the remedies that are applied: 400 MiB of 512 MiB."));
  status.mutable_job()->clear_memory();
  EXPECT_THAT(RenderPlan(status), HasSubstr("limit of the worker")) << "nobody gave one";
}

TEST(RenderPlan, OfARefusedJobSaysWhatWouldFit) {
  v1::JobStatus status = Planned();
  status.clear_resolved();
  status.set_state(v1::REFUSED);
  status.set_failure(v1::OUT_OF_MEMORY);
  status.mutable_profile()->set_limit_bytes(320 * kMiB);
  AddRemedy(status, "threads", "1 at a time", 350 * kMiB, 1.5, false);
  AddRemedy(status, "recompute", "8 segments", 320 * kMiB, 1.8, false);
  const std::string text = RenderPlan(status);
  EXPECT_THAT(text, HasSubstr("m.keras: batch 64 as 8 virtual replicas of 8 samples, 2 side by side in one trainer\n"));
  EXPECT_THAT(text, HasSubstr("1 at a time\n"));
  EXPECT_THAT(text, HasSubstr("8 segments (would fit)\n"));
  EXPECT_THAT(text, testing::EndsWith("It does not fit."));
  status.mutable_profile()->set_at_peak("again conv2");
  EXPECT_THAT(RenderPlan(status), HasSubstr("\nAt the peak: conv2, computed again in backward\n"));
}

// Its bytes are of the device.
v1::JobStatus PlannedForCuda() {
  v1::JobStatus status = Planned();
  v1::MemoryProfile& profile = *status.mutable_profile();
  profile.set_device(v1::Job::CUDA);
  profile.clear_expected_resident_bytes();
  profile.set_threads(1);
  (*profile.mutable_bytes_by_category())["checkpoint_copies"] = 0;
  (*profile.mutable_host()->mutable_bytes_by_category())["runtime"] = 2048 * kMiB;
  (*profile.mutable_host()->mutable_bytes_by_category())["input_pipeline"] = 256 * kMiB;
  (*profile.mutable_host()->mutable_bytes_by_category())["activations"] = 0;
  profile.mutable_host()->set_resident_bytes(2304 * kMiB);
  return status;
}

TEST(RenderPlan, ForCudaTheDeviceAndTheHostHaveATableEach) {
  EXPECT_EQ(
      RenderPlan(PlannedForCuda()),
      "m.keras: batch 64 as 8 virtual replicas of 8 samples (4 at once), one at a time in each of 2 trainers, with a CUDA device each\n"
      "Predicted memory of the device of one trainer at its peak, by category\n"
      "  parameters  300 MiB  75.0 %\n"
      "  runtime     100 MiB  25.0 %\n"
      "  in all      400 MiB\n"
      "  limit          none\n"
      "Predicted memory of its process on the host, by category\n"
      "  input_pipeline           256 MiB  11.1 %\n"
      "  runtime                 2.00 GiB  88.9 %\n"
      "  in all                  2.25 GiB\n"
      "  2 trainers on one host  4.50 GiB\n"
      "At the peak: backward conv1\n"
      "Tensors and workspaces take 200 MiB of the device; each virtual replica at a time 100 MiB\n"
      "Note: scale 1/255\n"
      "It fits.");
}

TEST(PlanToJson, ForCudaTheDeviceIsApartFromTheHost) {
  const auto json = PlanToJson(PlannedForCuda());
  EXPECT_EQ(json["device"], "cuda");
  EXPECT_EQ(json["device_bytes"], 400 * kMiB);
  EXPECT_EQ(json["trainer_bytes"], 2304 * kMiB);
  EXPECT_EQ(json["host_bytes"], 2 * 2304 * kMiB);
  EXPECT_EQ(json["tensor_bytes"], 200 * kMiB);
  EXPECT_EQ(json["profile"]["device"], "CUDA");
  EXPECT_EQ(json["profile"]["bytes_by_category"]["parameters"], 300 * kMiB);
  EXPECT_EQ(json["profile"]["host"]["bytes_by_category"]["runtime"], 2048 * kMiB);
  EXPECT_EQ(json["profile"]["host"]["resident_bytes"], 2304 * kMiB);
  const auto cpu = PlanToJson(Planned());
  EXPECT_FALSE(cpu.contains("device_bytes"));
  EXPECT_FALSE(cpu["profile"].contains("host"));
}

TEST(RenderJob, ForCudaTheDeviceAndTheHostHaveATableEach) {
  const std::string text = RenderJob(PlannedForCuda());
  EXPECT_THAT(text, testing::ContainsRegex("Memory of the CUDA device of one trainer, by category\n(.*\n)+  parameters +- +300 MiB\n"));
  EXPECT_THAT(text, testing::ContainsRegex("Memory of its process on the host, by category\n(.*\n)+  runtime +- +2.00 GiB\n"));
}

TEST(PlanToJson, HasEveryKeyThatIsPromisedWithItsUnit) {
  v1::JobStatus status = Planned();
  AddRemedy(status, "threads", "1 at a time", 350 * kMiB, 1.5, true);
  status.mutable_profile()->add_timeline_bytes(5'000'000'000);
  const auto json = PlanToJson(status);
  EXPECT_EQ(json["fits"], true);
  EXPECT_EQ(json["state"], "DONE");
  EXPECT_EQ(json["device"], "cpu");
  EXPECT_EQ(json["model"], "m.keras");
  EXPECT_EQ(json["batch"], 64);
  EXPECT_EQ(json["virtual_replicas"], 8);
  EXPECT_EQ(json["micro_batch"], 4);
  EXPECT_EQ(json["trainers"], 2);
  EXPECT_EQ(json["threads"], 2);
  EXPECT_EQ(json["trainer_bytes"], 400 * kMiB);
  EXPECT_EQ(json["host_bytes"], 800 * kMiB);
  EXPECT_EQ(json["tensor_bytes"], 300 * kMiB);
  EXPECT_TRUE(json["limit_bytes"].is_null());
  EXPECT_TRUE(json["largest_batch"].is_null());
  EXPECT_EQ(json["at_peak"], "backward conv1");
  EXPECT_EQ(json["notes"][0], "scale 1/255");
  EXPECT_EQ(json["profile"]["bytes_by_category"]["parameters"], 300 * kMiB);
  EXPECT_EQ(json["expected_trainer_bytes"], 330 * kMiB);
  EXPECT_EQ(json["profile"]["remedies"][0]["resident_bytes"], 350 * kMiB);
  EXPECT_EQ(json["profile"]["remedies"][0]["time_ratio"], 1.5);
  EXPECT_EQ(json["profile"]["timeline_bytes"][0], 5'000'000'000);
  EXPECT_EQ(json["resolved"]["virtual_replicas"], 8);
  status.clear_resolved();
  status.set_state(v1::REFUSED);
  status.set_failure(v1::OUT_OF_MEMORY);
  status.mutable_profile()->set_limit_bytes(320 * kMiB);
  const auto refused = PlanToJson(status);
  EXPECT_EQ(refused["fits"], false);
  EXPECT_EQ(refused["failure"], "OUT_OF_MEMORY");
  EXPECT_EQ(refused["limit_bytes"], 320 * kMiB);
  EXPECT_EQ(refused["virtual_replicas"], 8) << "as planning takes it to be";
  EXPECT_FALSE(refused.contains("resolved"));
}

TEST(RenderJob, ShowsWhatIsPredictedBesideWhatIsMeasured) {
  v1::JobStatus status = Planned();
  EXPECT_THAT(RenderJob(status), HasSubstr("  parameters              -      300 MiB\n")) << "nothing runs yet";
  v1::ReplicaStatus& replica = *status.add_replicas();
  replica.set_virtual_replica_count(4);
  (*replica.mutable_memory()->mutable_bytes_by_category())["parameters"] = 290 * kMiB;
  EXPECT_THAT(RenderJob(status), HasSubstr("  parameters         290 MiB  100.0 %    300 MiB\n"));
  status.mutable_result()->set_samples(1);
  (*status.mutable_result()->mutable_memory()->mutable_bytes_by_category())["parameters"] = 280 * kMiB;
  EXPECT_THAT(RenderJob(status), HasSubstr("  parameters         280 MiB  100.0 %    300 MiB\n"));
  status.clear_profile();
  EXPECT_THAT(RenderJob(status), Not(HasSubstr("predicted")));
  EXPECT_FALSE(ToJson(status).contains("profile"));
}

}  // namespace
}  // namespace lockstep
