#include "rpc/file_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <filesystem>
#include <string>

#include "base/file.h"
#include "base/test_folder.h"

namespace lockstep {
namespace {

class FileStream : public testing::Test {
 protected:
  std::string Path(const char* name) const { return folder_ / name; }
  void Write(const char* name, const std::string& contents) { ASSERT_TRUE(WriteFileAtomically(Path(name), contents).ok()); }
  std::deque<v1::Chunk> Send(const char* name) {
    std::deque<v1::Chunk> chunks;
    EXPECT_TRUE(SendFile(Path(name), [&](const v1::Chunk& chunk) {
                  chunks.push_back(chunk);
                  return true;
                }).ok());
    return chunks;
  }
  absl::StatusOr<FileDigest> Receive(const char* name, std::deque<v1::Chunk> chunks, uint64_t most = UINT64_MAX) {
    return ReceiveFile(
        Path(name),
        [&](v1::Chunk* chunk) {
          if (chunks.empty()) return false;
          *chunk = chunks.front();
          chunks.pop_front();
          return true;
        },
        most);
  }
  size_t Files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_.path()), std::filesystem::directory_iterator()));
  }

  const TestFolder folder_;
};

TEST_F(FileStream, ArrivesWholeWhateverItsSize) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1} << 20, (size_t{3} << 20) + 17}) {
    std::string contents(size, 'x');
    for (size_t i = 0; i < size; ++i) contents[i] = static_cast<char>(i * 2654435761u >> 13);
    Write("a", contents);
    const auto digest = Receive("b", Send("a"));
    ASSERT_TRUE(digest.ok()) << digest.status();
    EXPECT_EQ(digest->bytes, size);
    EXPECT_EQ(digest->xxh3_128, DigestFile(Path("a"))->xxh3_128);
    EXPECT_EQ(*ReadFile(Path("b")), contents);
  }
}

TEST_F(FileStream, AChangedByteIsDataLossAndTheOldFileStays) {
  Write("a", std::string(2'000'000, 'a'));
  Write("b", "old");
  auto chunks = Send("a");
  (*chunks[1].mutable_data())[5] ^= 1;
  EXPECT_EQ(Receive("b", chunks).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(*ReadFile(Path("b")), "old");
  EXPECT_EQ(Files(), 2u) << "no temporary file is left";
}

TEST_F(FileStream, AStreamThatEndsEarlyIsUnavailable) {
  Write("a", std::string(2'000'000, 'a'));
  auto chunks = Send("a");
  chunks.pop_back();
  EXPECT_EQ(Receive("b", chunks).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(std::filesystem::exists(Path("b")));
}

TEST_F(FileStream, MoreThanAllowedIsRefused) {
  Write("a", std::string(1000, 'a'));
  EXPECT_EQ(Receive("b", Send("a"), 999).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lockstep
