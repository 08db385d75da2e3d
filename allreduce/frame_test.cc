#include "allreduce/frame.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace lockstep::allreduce {
namespace {

// The header that docs/allreduce.md shows.
TEST(Frame, TheHeaderIsTheDocumentedOne) {
  const std::array<std::byte, 128> payload{};
  const FrameHeader header = MakeFrameHeader(FrameType::kSums, 7, 0, {payload});
  const unsigned char documented[32] = {0x4c, 0x53, 0x52, 0x46, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80};
  EXPECT_EQ(std::memcmp(&header, documented, sizeof(documented)), 0);
}

TEST(Frame, PiecesAreOnePayload) {
  std::array<std::byte, 1000> payload{};
  payload[500] = std::byte{1};
  const std::span<const std::byte> bytes(payload);
  const FrameHeader whole = MakeFrameHeader(FrameType::kSums, 7, 3, {bytes});
  const FrameHeader pieces = MakeFrameHeader(FrameType::kSums, 7, 3, {bytes.first(17), bytes.subspan(17, 0), bytes.subspan(17)});
  EXPECT_EQ(whole.payload_checksum, pieces.payload_checksum);
  EXPECT_EQ(whole.payload_bytes, pieces.payload_bytes);
  EXPECT_TRUE(CheckHeader(pieces, 7).ok());
  EXPECT_TRUE(CheckPayload(pieces, payload).ok());
}

TEST(Frame, AnyChangedBitIsFound) {
  std::array<std::byte, 40> payload{};
  const FrameHeader header = MakeFrameHeader(FrameType::kResult, 7, 3, {payload});
  for (size_t bit = 0; bit < sizeof(header) * 8; ++bit) {
    FrameHeader changed = header;
    reinterpret_cast<unsigned char*>(&changed)[bit / 8] ^= static_cast<unsigned char>(1u << bit % 8);
    EXPECT_TRUE(absl::IsDataLoss(CheckHeader(changed, 7))) << "bit " << bit;
  }
  for (size_t bit = 0; bit < payload.size() * 8; ++bit) {
    std::array<std::byte, 40> changed = payload;
    changed[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    EXPECT_TRUE(absl::IsDataLoss(CheckPayload(header, changed))) << "bit " << bit;
  }
}

TEST(Frame, AnotherGenerationIsRefused) {
  EXPECT_TRUE(absl::IsFailedPrecondition(CheckHeader(MakeFrameHeader(FrameType::kAlive, 6, 0, {}), 7)));
}

}  // namespace
}  // namespace lockstep::allreduce
