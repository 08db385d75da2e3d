#include "trainer/checkpoint_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/file.h"
#include "base/test_folder.h"

namespace lockstep {
namespace {

using testing::HasSubstr;

template <typename T>
absl::Span<const std::byte> Bytes(const std::vector<T>& values) {
  return {reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(T)};
}

class CheckpointFile : public testing::Test {
 protected:
  void Write() {
    auto writer = CheckpointFileWriter::Create(path_, {{"step", "7"}, {"note", "a \"quoted\" one"}},
                                               {{"dense/kernel", "F32", {2, 3}, 24}, {"empty", "F32", {0}, 0}, {"bias", "F64", {1}, 8}});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(Bytes(kernel_).subspan(0, 5)).ok());
    ASSERT_TRUE((*writer)->Append(Bytes(kernel_).subspan(5)).ok());
    EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kInvalidArgument) << "a tensor is missing";
    ASSERT_TRUE((*writer)->Append(Bytes(bias_)).ok());
    EXPECT_EQ((*writer)->Append(Bytes(bias_)).code(), absl::StatusCode::kInvalidArgument);
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  const TestFolder folder_;
  const std::string path_ = folder_ / "checkpoint.safetensors";
  const std::vector<float> kernel_ = {1, -2, 3.5, 1e-42F, 5, 6};
  const std::vector<double> bias_ = {0.1};
};

TEST_F(CheckpointFile, ComesBackBitByBit) {
  Write();
  const auto reader = CheckpointFileReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->metadata().at("step"), "7");
  EXPECT_EQ((*reader)->metadata().at("note"), "a \"quoted\" one");
  EXPECT_EQ((*reader)->Find("dense/kernel")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ((*reader)->Find("other"), nullptr);
  std::vector<float> kernel(6);
  ASSERT_TRUE((*reader)->Read("dense/kernel", {reinterpret_cast<std::byte*>(kernel.data()), 24}).ok());
  EXPECT_EQ(kernel, kernel_);
  EXPECT_THAT((*reader)->Read("bias", {reinterpret_cast<std::byte*>(kernel.data()), 24}).message(), HasSubstr("bias has 8 bytes"));
}

// As the format's documentation has it: what any other reader of it does.
TEST_F(CheckpointFile, IsWhatOtherReadersOfTheFormatExpect) {
  Write();
  const std::string file = *ReadFile(path_);
  uint64_t length = 0;
  for (size_t i = 0; i < 8; ++i) length |= uint64_t{static_cast<unsigned char>(file[i])} << (8 * i);
  EXPECT_EQ(length % 8, 0u) << "tensors are aligned";
  const auto header = nlohmann::json::parse(file.substr(8, length));
  const auto& bias = header["bias"];
  EXPECT_EQ(bias["dtype"], "F64");
  ASSERT_EQ(bias["data_offsets"], (std::vector<uint64_t>{24, 32}));
  EXPECT_EQ(file.size(), 8 + length + 32);
  double value = 0;
  std::memcpy(&value, file.data() + 8 + length + 24, sizeof(value));
  EXPECT_EQ(value, 0.1);
  for (const auto& [key, text] : header["__metadata__"].items()) EXPECT_TRUE(text.is_string()) << key;
}

TEST_F(CheckpointFile, AnyFlippedBitAndAnyTornEndIsFound) {
  Write();
  const std::string whole = *ReadFile(path_);
  const auto open = [&](const std::string& contents) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << contents;
    return CheckpointFileReader::Open(path_).status();
  };
  ASSERT_TRUE(open(whole).ok());
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string flipped = whole;
    flipped[i] = static_cast<char>(flipped[i] ^ (1 << (i % 8)));
    const absl::Status status = open(flipped);
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << "bit of byte " << i << ": " << status;
    ASSERT_THAT(status.message(), HasSubstr("checkpoint.safetensors: "));
    ASSERT_EQ(open(whole.substr(0, i)).code(), absl::StatusCode::kDataLoss) << "torn at " << i;
  }
  EXPECT_EQ(open(whole + "x").code(), absl::StatusCode::kDataLoss) << "too long";
  EXPECT_EQ(CheckpointFileReader::Open(folder_ / "none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace lockstep
