#include "rpc/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/file.h"
#include "base/test_folder.h"

namespace lockstep {
namespace {

class Options : public testing::Test {
 protected:
  Options() : app_("test") {
    AddConfigFile(app_);
    AddServerFlags(app_, flags_);
  }
  std::string Config(const std::string& yaml) {
    const std::string path = folder_ / "options.yaml";
    EXPECT_TRUE(WriteFileAtomically(path, yaml).ok());
    return path;
  }
  void Parse(std::vector<std::string> words) {
    std::reverse(words.begin(), words.end());
    app_.parse(words);
  }
  const TestFolder folder_;
  CLI::App app_;
  ServerFlags flags_;
};

TEST_F(Options, YamlHoldsAnyOptionAndTheCommandLineWins) {
  const std::string path = Config("listen: 127.0.0.1:1\ninsecure: true\ntoken-file: /from/yaml\n");
  Parse({"--config", path, "--token-file", "/from/line"});
  EXPECT_EQ(flags_.listen, "127.0.0.1:1");
  EXPECT_TRUE(flags_.insecure);
  EXPECT_EQ(flags_.token_file, "/from/line");
}

TEST_F(Options, AnUnknownKeyNamesTheNearestKnownOne) {
  const std::string path = Config("lisen: 127.0.0.1:1\n");
  try {
    Parse({"--config", path});
    FAIL() << "accepted";
  } catch (const CLI::Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("\"lisen\"; the nearest is \"listen\""));
  }
}

TEST_F(Options, WhatIsNotYamlIsAnError) {
  EXPECT_THROW(Parse({"--config", Config("listen: [1, 2")}), CLI::Error);
  EXPECT_THROW(Parse({"--config", Config("- a\n- b\n")}), CLI::Error);
}

TEST_F(Options, ATokenFileThatIsEmptyOrMissingIsAnError) {
  flags_.token_file = folder_ / "token";
  ASSERT_TRUE(WriteFileAtomically(flags_.token_file, " \n").ok());
  EXPECT_EQ(ReadServerOptions(flags_).status().code(), absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(WriteFileAtomically(flags_.token_file, "secret\n").ok());
  EXPECT_EQ(ReadServerOptions(flags_)->token, "secret");
  flags_.token_file = "/no/such/file";
  EXPECT_EQ(ReadServerOptions(flags_).status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace lockstep
