#include "base/file.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>

#include "base/test_folder.h"

namespace lockstep {
namespace {

class FileTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_ / name; }

  const TestFolder folder_;
};

TEST_F(FileTest, WrittenIsWhatIsRead) {
  const std::string contents(100'000, 'x');
  ASSERT_TRUE(WriteFileAtomically(Path("a"), contents).ok());
  EXPECT_EQ(ReadFile(Path("a")).value(), contents);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1) << "a temporary file was left behind";
}

TEST_F(FileTest, ErrorsNameThePathAndKeepTheOldFile) {
  EXPECT_EQ(ReadFile(Path("missing")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(ReadFile(Path("missing")).status().message()).find(Path("missing")), std::string::npos);
  EXPECT_EQ(WriteFileAtomically(Path("no/such/folder"), "x").code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadFile(folder_.path()).ok());
  EXPECT_EQ(WriteFileAtomically("/dev/full/x", "x").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrnoStatus(ENOSPC, "cannot write", "/a"), absl::UnknownError("cannot write /a: No space left on device"));
}

}  // namespace
}  // namespace lockstep
