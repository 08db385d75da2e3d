#include "base/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace lockstep {
namespace {

class FileTest : public testing::Test {
 protected:
  FileTest() : directory_(std::filesystem::temp_directory_path() / ("lockstep_file_test." + std::to_string(getpid()))) {
    std::filesystem::create_directories(directory_);
  }
  ~FileTest() override { std::filesystem::remove_all(directory_); }
  std::string Path(const std::string& name) const { return (directory_ / name).string(); }

  const std::filesystem::path directory_;
};

TEST_F(FileTest, WrittenIsWhatIsRead) {
  const std::string contents(100'000, 'x');
  ASSERT_TRUE(WriteFileAtomically(Path("a"), contents).ok());
  EXPECT_EQ(ReadFile(Path("a")).value(), contents);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1) << "a temporary file was left behind";
}

TEST_F(FileTest, ErrorsNameThePathAndKeepTheOldFile) {
  EXPECT_EQ(ReadFile(Path("missing")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(ReadFile(Path("missing")).status().message()).find(Path("missing")), std::string::npos);
  EXPECT_EQ(WriteFileAtomically(Path("no/such/folder"), "x").code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadFile(directory_.string()).ok());
  EXPECT_EQ(WriteFileAtomically("/dev/full/x", "x").code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace lockstep
