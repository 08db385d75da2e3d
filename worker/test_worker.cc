#include "worker/test_worker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace lockstep {
namespace {

std::string ReadyFile(const std::string& state_folder) { return state_folder + "/ready"; }

std::vector<std::string> Words(const std::string& coordinator, const std::string& state_folder, const std::vector<std::string>& more) {
  std::filesystem::create_directories(state_folder);
  // Of the worker before.
  std::filesystem::remove(ReadyFile(state_folder));
  std::vector<std::string> words = {LOCKSTEP_WORKER_PROGRAM, "--coordinator",        coordinator, "--state-dir", state_folder,
                                    "--ready-file",          ReadyFile(state_folder)};
  const auto add_unless_given = [&](const std::string& flag, const std::string& value) {
    if (std::find(more.begin(), more.end(), flag) == more.end()) words.insert(words.end(), {flag, value});
  };
  add_unless_given("--trainer", LOCKSTEP_FAKE_TRAINER);
  add_unless_given("--metrics", "127.0.0.1:0");
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

}  // namespace

TestWorker::TestWorker(const std::string& coordinator, const std::string& state_folder, const std::vector<std::string>& more,
                       const std::string& token)
    : TestProcess(Words(coordinator, state_folder, more), {"LOCKSTEP_TOKEN=" + token}, state_folder + "/log"),
      ready_file_(ReadyFile(state_folder)) {}

std::string TestWorker::Metrics() const {
  EXPECT_TRUE(Eventually([this] { return std::filesystem::exists(ready_file_); })) << "not ready";
  const nlohmann::json ready = nlohmann::json::parse(ReadFile(ready_file_).value_or("{}"));
  EXPECT_EQ(ready.value("pid", 0), pid());
  EXPECT_NE(ready.value("worker_id", ""), "");
  return ready.value("metrics", "");
}

}  // namespace lockstep
