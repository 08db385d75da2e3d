#include "client/summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "base/file.h"
#include "client/proto_json.h"
#include "client/step_log.h"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

v1::StepRecord Step(uint64_t step) {
  v1::StepRecord record;
  record.set_step(step);
  record.set_epoch(2);
  record.set_loss(0.1);
  record.set_state_hash("0123456789abcdef0123456789abcdef");
  record.set_generation(3);
  record.set_samples(2);
  record.add_sample_paths("cat/1.jpg");
  record.add_sample_paths("dög/\xff.jpg");
  return record;
}

TEST(StepLogLine, HasTheKeysThatIsPromised) {
  EXPECT_EQ(StepLogLine(Step(7), false),
            R"({"step":7,"epoch":2,"loss":0.1,"state_hash":"0123456789abcdef0123456789abcdef","generation":3})");
  const Json with_samples = Json::parse(StepLogLine(Step(7), true));
  EXPECT_EQ(with_samples["samples"].size(), 2u);
  EXPECT_EQ(with_samples["samples"][0], "cat/1.jpg");
  v1::StepRecord lost = Step(8);
  lost.set_loss(NAN);
  EXPECT_THAT(StepLogLine(lost, false), HasSubstr(R"("loss":null)"));
}

TEST(StepLog, LinesAreThereAsTheyCome) {
  const std::string path = (std::filesystem::temp_directory_path() / ("lockstep_step_log_test." + std::to_string(getpid()))).string();
  auto log = StepLog::Create(path, false);
  ASSERT_TRUE(log.ok());
  (*log)->Append(Step(1));
  EXPECT_EQ(*ReadFile(path), StepLogLine(Step(1), false) + "\n");
  (*log)->Append(Step(2));
  EXPECT_TRUE((*log)->Close().ok());
  EXPECT_EQ(*ReadFile(path), StepLogLine(Step(1), false) + "\n" + StepLogLine(Step(2), false) + "\n");
  std::filesystem::remove(path);
}

TEST(StepLog, AFullDiskIsTold) {
  auto log = StepLog::Create("/dev/full", false);
  ASSERT_TRUE(log.ok());
  (*log)->Append(Step(1));
  (*log)->Append(Step(2));
  EXPECT_EQ((*log)->Close().code(), absl::StatusCode::kUnknown);
  EXPECT_FALSE(StepLog::Create("/no/such/folder/log", false).ok());
}

TEST(Summary, HasEveryKeyThatIsPromised) {
  v1::Event event;
  event.set_sequence(1);
  v1::Result& result = *event.mutable_result();
  result.set_steps(10);
  result.set_epochs(2);
  result.set_loss(0.25);
  result.set_state_hash("ff");
  v1::NamedValue& metric = *result.add_metrics();
  metric.set_name("accuracy");
  metric.set_value(0.875);
  (*result.mutable_memory()->mutable_bytes_by_category())["parameters"] = 5'000'000'000;
  result.mutable_memory()->set_peak_bytes(7);
  result.mutable_memory()->set_limit_bytes(9);
  RunView view{v1::Job()};
  view.Apply(event);
  v1::JobStatus status;
  status.set_state(v1::DONE);
  status.set_generation(2);
  const Json json = MakeSummary(view, status);
  for (const char* key :
       {"steps", "epochs", "images_per_second", "wall_seconds", "loss", "metrics", "validation", "state_hash", "generations", "memory"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["state"], "DONE");
  EXPECT_EQ(json["steps"], 10);
  EXPECT_EQ(json["metrics"]["accuracy"], 0.875);
  EXPECT_EQ(json["generations"], 2);
  EXPECT_EQ(json["memory"]["bytes_by_category"]["parameters"], 5'000'000'000);
  EXPECT_EQ(json["memory"]["peak"], 7);
  EXPECT_EQ(json["memory"]["limit"], 9);
  EXPECT_FALSE(json["memory"].contains("predicted_resident"));
  (*status.mutable_profile()->mutable_bytes_by_category())["parameters"] = 4;
  status.mutable_profile()->set_peak_bytes(8);
  status.mutable_profile()->set_resident_bytes(11);
  status.mutable_profile()->set_expected_resident_bytes(9);
  const Json predicted = MakeSummary(view, status)["memory"];
  EXPECT_EQ(predicted["predicted_bytes_by_category"]["parameters"], 4);
  EXPECT_EQ(predicted["predicted_peak"], 8);
  EXPECT_EQ(predicted["predicted_resident"], 11);
  EXPECT_EQ(predicted["expected_resident"], 9);
}

TEST(Summary, OfAJobWithoutAResultIsItsLastStep) {
  RunView view{v1::Job()};
  v1::Event event;
  *event.mutable_step() = Step(5);
  view.Apply(event);
  v1::JobStatus status;
  status.set_state(v1::CANCELLED);
  const Json json = MakeSummary(view, status);
  EXPECT_EQ(json["steps"], 5);
  EXPECT_EQ(json["state_hash"], "0123456789abcdef0123456789abcdef");
  EXPECT_EQ(json["generations"], 3);
  EXPECT_EQ(json["samples"], 2);
}

TEST(ProtoJson, NumbersStayNumbersAndNamesStayNames) {
  v1::JobStatus status;
  status.set_job_id("j");
  status.set_state(v1::RUNNING);
  status.set_submitted_unix_ms(1'700'000'000'123);
  v1::NamedValue& metric = *status.add_epochs()->add_metrics();
  metric.set_name("loss");
  metric.set_value(INFINITY);
  status.mutable_latest()->set_sample_digest(0xfedcba9876543210);
  const Json json = ToJson(status);
  EXPECT_EQ(json["submitted_unix_ms"], 1'700'000'000'123);
  EXPECT_EQ(json["state"], "RUNNING");
  EXPECT_EQ(json["epochs"][0]["metrics"].dump(), R"({"loss":null})");
  EXPECT_EQ(json["latest"]["sample_digest"], "fedcba9876543210");
  EXPECT_FALSE(json.contains("result"));
  EXPECT_EQ(json["artifacts"].dump(), "[]");
}

}  // namespace
}  // namespace lockstep
