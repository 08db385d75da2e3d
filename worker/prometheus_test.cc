// A real Prometheus, with the configuration in deploy/, scrapes a worker (and the coordinator, where it was built) and is asked what it
// saw. Holds docs/metrics.md and the Grafana dashboard to it. Exit status 77: there is no prometheus on this machine.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/file.h"
#include "worker/fake_coordinator.h"
#include "worker/test_process.h"
#include "worker/test_worker.h"

namespace lockstep {
namespace {

using nlohmann::json;
using testing::IsEmpty;
using testing::Not;

std::string Get(const std::string& address, const std::string& path, const httplib::Params& parameters = {}) {
  httplib::Client client(absl::StrCat("http://", address));
  const httplib::Result result = client.Get(path.c_str(), parameters, httplib::Headers());
  return result && result->status == 200 ? result->body : "";
}

std::string SourceFile(const std::string& name) { return ReadFile(absl::StrCat(LOCKSTEP_SOURCE, "/", name)).value(); }

std::set<std::string> NamesIn(const std::string& text, const std::regex& pattern) {
  std::set<std::string> names;
  for (std::sregex_iterator one(text.begin(), text.end(), pattern), end; one != end; ++one) names.insert((*one)[1]);
  return names;
}

// The series that are served.
std::set<std::string> ServedBy(const std::string& address) {
  return NamesIn(Get(address, "/metrics"), std::regex("# TYPE (lockstep_\\w+) "));
}

class Prometheus {
 public:
  Prometheus(const std::string& folder, const std::string& worker, const std::string& coordinator)
      : config_(WriteConfig(folder, worker, coordinator)),
        process_({"prometheus", "--config.file", config_, "--storage.tsdb.path", folder + "/data", "--web.listen-address", "127.0.0.1:0"},
                 {}, folder + "/log") {}

  // Waits until it serves.
  std::string Address() {
    static const std::regex listening("msg=\"Listening on\" address=(\\S+)");
    std::smatch found;
    std::string log;
    const bool came = Eventually([&] {
      log = process_.Log();
      return std::regex_search(log, found, listening);
    });
    EXPECT_TRUE(came) << log;
    return came ? found[1].str() : "";
  }

  // The value of one series; nothing if there is none now, or more.
  std::optional<double> Query(const std::string& expression) {
    const json answer = Ask(expression);
    if (answer.at("status") != "success" || answer.at("data").at("result").size() != 1) return std::nullopt;
    return std::stod(answer.at("data").at("result").at(0).at("value").at(1).get<std::string>());
  }
  json Ask(const std::string& expression) {
    if (address_.empty()) address_ = Address();
    const std::string body = Get(address_, "/api/v1/query", {{"query", expression}});
    return json::parse(body.empty() ? R"({"status": "no answer"})" : body);
  }

  bool EventuallyIs(const std::string& expression, double value) {
    return Eventually([&] { return Query(expression) == value; });
  }

 private:
  // The one that is deployed, but for the addresses and the haste.
  static std::string WriteConfig(const std::string& folder, const std::string& worker, const std::string& coordinator) {
    std::filesystem::create_directories(folder);
    const std::string config = absl::StrReplaceAll(SourceFile("deploy/prometheus.yml"), {{"127.0.0.1:7071", coordinator},
                                                                                         {"127.0.0.1:7072", worker},
                                                                                         {"interval: 15s", "interval: 200ms"},
                                                                                         {"timeout: 10s", "timeout: 200ms"}});
    EXPECT_TRUE(absl::StrContains(config, "200ms") && absl::StrContains(config, worker)) << config;
    const std::string path = folder + "/prometheus.yml";
    EXPECT_TRUE(WriteFileAtomically(path, config).ok());
    return path;
  }

  const std::string config_;
  TestProcess process_;
  std::string address_;
};

// Takes five seconds to find its targets, so all tests share one.
struct Scene {
  TestFolder folder;
  FakeCoordinator fake_coordinator;
  TestWorker worker{fake_coordinator.address(), folder / "worker"};
#ifdef LOCKSTEP_COORDINATOR_PROGRAM
  TestProcess coordinator{{LOCKSTEP_COORDINATOR_PROGRAM, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--state-dir",
                           folder / "coordinator", "--ready-file", folder / "ready"},
                          {"LOCKSTEP_TOKEN=test-token"},
                          folder / "coordinator.log"};
  const json ready = AwaitReady();
  const std::string coordinator_metrics = ready.value("http", "");
  TestWorker coordinators_worker{ready.value("grpc", ""), folder / "second"};
#else
  const std::string coordinator_metrics = "127.0.0.1:1";
#endif
  Prometheus prometheus{folder / "prometheus", worker.Metrics(), coordinator_metrics};

  json AwaitReady() const {
    EXPECT_TRUE(Eventually([this] { return std::filesystem::exists(folder / "ready"); })) << "the coordinator does not start";
    return json::parse(ReadFile(folder / "ready").value_or("{}"));
  }
};

class PrometheusTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { scene_ = std::make_unique<Scene>(); }
  static void TearDownTestSuite() { scene_.reset(); }

  static std::unique_ptr<Scene> scene_;
  FakeCoordinator& coordinator_ = scene_->fake_coordinator;
  TestWorker& worker_ = scene_->worker;
  Prometheus& prometheus_ = scene_->prometheus;
};

std::unique_ptr<Scene> PrometheusTest::scene_;

TEST_F(PrometheusTest, ScrapesAWorkerWhileItsTrainersRunAndNoLonger) {
  v1::TrainerOrder order = MakeOrder("job-a", "run");
  coordinator_.Want({order});
  coordinator_.AwaitRunning("job-a");
  EXPECT_TRUE(prometheus_.EventuallyIs("up{job=\"lockstep-worker\"}", 1));
  EXPECT_TRUE(prometheus_.EventuallyIs("lockstep_trainer_epoch{job=\"job-a\"}", 1));
  EXPECT_EQ(prometheus_.Query("lockstep_worker_connected"), 1);
  EXPECT_EQ(prometheus_.Query("lockstep_trainer_images_per_second{job=\"job-a\",rank=\"0\"}"), 123.5);
  EXPECT_EQ(prometheus_.Query("lockstep_trainer_memory_bytes{job=\"job-a\",category=\"activations\"}"), 5000);
  EXPECT_EQ(prometheus_.Query("lockstep_trainer_resident_bytes{job=\"job-a\"}"), 90'000);
  EXPECT_TRUE(Eventually([&] { return prometheus_.Query("increase(lockstep_trainer_steps_total{job=\"job-a\"}[5s])").value_or(0) > 0; }));
  EXPECT_TRUE(Eventually([&] {
    return prometheus_.Query("rate(lockstep_trainer_phase_seconds_total{job=\"job-a\",phase=\"forward\"}[5s])").value_or(0) > 0;
  }));
  EXPECT_GT(prometheus_.Query("lockstep_process_resident_bytes{job=\"lockstep-worker\"}").value_or(0), 1 << 20);
  // Cancelled, it ends; its series end with it.
  order.set_cancel(true);
  coordinator_.Want({order});
  coordinator_.AwaitEnd("job-a");
  EXPECT_TRUE(prometheus_.EventuallyIs("lockstep_worker_trainers_ended_total{reason=\"done\"}", 1));
  EXPECT_TRUE(Eventually([&] { return !prometheus_.Query("lockstep_trainer_steps_total{job=\"job-a\"}").has_value(); }));
}

TEST_F(PrometheusTest, EverySeriesOfAWorkerIsInTheDocumentationAndOnTheDashboardNoOther) {
  coordinator_.Want({MakeOrder("job-b", "run")});
  coordinator_.AwaitRunning("job-b");
  const std::string documentation = SourceFile("docs/metrics.md");
  const std::set<std::string> documented = NamesIn(documentation, std::regex("\\| `(lockstep_\\w+)` \\|"));
  const std::string of_worker = documentation.substr(0, documentation.find("## The coordinator's"));
  EXPECT_EQ(ServedBy(worker_.Metrics()), NamesIn(of_worker, std::regex("\\| `(lockstep_\\w+)` \\|")));
  for (const std::string& name : NamesIn(SourceFile("deploy/grafana/lockstep.json"), std::regex("(lockstep_\\w+)"))) {
    EXPECT_TRUE(documented.contains(name)) << "on the dashboard, but nowhere served: " << name;
  }
}

TEST_F(PrometheusTest, EveryPanelOfTheDashboardIsAQueryThatPrometheusUnderstands) {
  coordinator_.Want({MakeOrder("job-c", "run")});
  coordinator_.AwaitRunning("job-c");
  EXPECT_TRUE(Eventually([&] { return prometheus_.Query("rate(lockstep_trainer_steps_total{job=\"job-c\"}[5s])").has_value(); }));
  const json dashboard = json::parse(SourceFile("deploy/grafana/lockstep.json"));
  size_t with_data = 0;
  for (const json& panel : dashboard["panels"]) {
    for (const json& target : panel["targets"]) {
      const std::string expression = absl::StrReplaceAll(target["expr"].get<std::string>(), {{"$__rate_interval", "5s"}, {"$job", ".*"}});
      const json answer = prometheus_.Ask(expression);
      EXPECT_EQ(answer["status"], "success") << expression << ": " << answer;
      const bool of_worker = absl::StrContains(expression, "lockstep_trainer_") || absl::StrContains(expression, "lockstep_worker_");
      if (!of_worker) continue;
      EXPECT_THAT(answer["data"]["result"], Not(IsEmpty())) << panel["title"] << ": " << expression;
      ++with_data;
    }
  }
  EXPECT_GT(with_data, 5U);
}

#ifdef LOCKSTEP_COORDINATOR_PROGRAM
TEST_F(PrometheusTest, ScrapesTheCoordinatorToo) {
  EXPECT_TRUE(prometheus_.EventuallyIs("up{job=\"lockstep-coordinator\"}", 1));
  EXPECT_TRUE(prometheus_.EventuallyIs("lockstep_workers{state=\"connected\"}", 1));
  EXPECT_GT(prometheus_.Query("lockstep_process_resident_bytes{job=\"lockstep-coordinator\"}").value_or(0), 1 << 20);
  EXPECT_GE(prometheus_.Query("lockstep_free_slots").value_or(0), 1);
  const std::set<std::string> documented = NamesIn(SourceFile("docs/metrics.md"), std::regex("\\| `(lockstep_\\w+)` \\|"));
  const std::set<std::string> served = ServedBy(scene_->coordinator_metrics);
  EXPECT_THAT(served, Not(IsEmpty()));
  for (const std::string& name : served) EXPECT_TRUE(documented.contains(name)) << "not in docs/metrics.md: " << name;
}
#endif

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (std::system("prometheus --version >/dev/null 2>&1") != 0) {
    std::cout << "SKIPPED: there is no prometheus program here (Debian package \"prometheus\")\n";
    return 77;
  }
  return RUN_ALL_TESTS();
}
