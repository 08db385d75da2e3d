#include "dataset/decode.h"

#include <random>
#include <string>

#include "dataset/test_pictures.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

using ::testing::HasSubstr;

Pixels Decoded(const std::string& file, const DecodeOptions& options = {}) {
  Pixels pixels;
  const absl::Status status = Decode(file, options, pixels);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(pixels.data.size(), static_cast<size_t>(pixels.height) * pixels.width * pixels.channels);
  return pixels;
}

std::string Reason(const std::string& file, const DecodeOptions& options = {}) {
  Pixels pixels;
  const absl::Status status = Decode(file, options, pixels);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  return std::string(status.message());
}

TEST(DecodeJpeg, ColourGreyAndProgressive) {
  const Pixels colour = SmoothPixels(61, 83, 3), grey = SmoothPixels(61, 83, 1);
  for (const bool progressive : {false, true}) {
    const Pixels pixels = Decoded(EncodeJpeg(colour, {.progressive = progressive, .subsampled = false}));
    EXPECT_EQ(pixels.height, 61);
    EXPECT_EQ(pixels.width, 83);
    EXPECT_LT(MeanDifference(pixels.data, colour.data), 2);
    EXPECT_LT(MeanDifference(Decoded(EncodeJpeg(grey, {.progressive = progressive}), {.channels = 1}).data, grey.data), 1);
  }
}

TEST(DecodeJpeg, GreyBecomesThreeEqualChannelsAndColourItsLuma) {
  const Pixels grey = SmoothPixels(16, 16, 1);
  const Pixels three = Decoded(EncodeJpeg(grey)), one = Decoded(EncodeJpeg(grey), {.channels = 1});
  const Pixels colour = SmoothPixels(16, 16, 3);
  const Pixels luma = Decoded(EncodeJpeg(colour), {.channels = 1});
  for (size_t i = 0; i < one.data.size(); ++i) {
    for (size_t c = 0; c < 3; ++c) EXPECT_EQ(three.data[3 * i + c], one.data[i]);
    const double expected = 0.299 * colour.data[3 * i] + 0.587 * colour.data[3 * i + 1] + 0.114 * colour.data[3 * i + 2];
    EXPECT_NEAR(luma.data[i], expected, 8);
  }
}

TEST(DecodeJpeg, TheScaleIsTheSmallestThatIsLargeEnough) {
  const std::string file = EncodeJpeg(SmoothPixels(300, 401, 3));
  const auto size = [&](int height, int width) {
    const Pixels pixels = Decoded(file, {.least_height = height, .least_width = width});
    return std::make_pair(pixels.height, pixels.width);
  };
  EXPECT_EQ(size(0, 0), std::make_pair(300, 401));
  EXPECT_EQ(size(224, 224), std::make_pair(300, 401));
  EXPECT_EQ(size(151, 1), std::make_pair(300, 401));
  EXPECT_EQ(size(150, 201), std::make_pair(150, 201));
  EXPECT_EQ(size(10, 101), std::make_pair(75, 101));
  EXPECT_EQ(size(1, 1), std::make_pair(38, 51));
  EXPECT_EQ(size(1000, 1000), std::make_pair(300, 401));
}

TEST(DecodeJpeg, CmykIsRefused) { EXPECT_THAT(Reason(EncodeJpeg(SmoothPixels(16, 16, 4), {.cmyk = true})), HasSubstr("CMYK")); }

TEST(DecodeJpeg, EveryCutIsSeen) {
  for (const bool progressive : {false, true}) {
    const std::string file = EncodeJpeg(SmoothPixels(40, 40, 3), {.progressive = progressive});
    // Without the end marker libjpeg can only guess that the picture is whole; the last two bytes are that marker.
    for (size_t length = 3; length < file.size(); length += length < 700 ? 1 : 7) {
      EXPECT_THAT(Reason(file.substr(0, length)), HasSubstr("damaged JPEG: ")) << "cut to " << length << " of " << file.size();
    }
  }
}

// Stray bytes between markers are common in pictures from the web, and lose nothing.
TEST(DecodeJpeg, StrayBytesBeforeAMarkerAreNoDamage) {
  const std::string file = EncodeJpeg(SmoothPixels(40, 40, 3));
  const std::string with_stray = file.substr(0, file.size() - 2) + std::string("\x12\x34", 2) + file.substr(file.size() - 2);
  EXPECT_EQ(Decoded(with_stray).data, Decoded(file).data);
}

TEST(DecodePng, GreyColourAlphaPaletteAndInterlacedAreExact) {
  const Pixels colour = NoisyPixels(13, 17, 3), grey = NoisyPixels(13, 17, 1);
  EXPECT_EQ(Decoded(EncodePng(colour)).data, colour.data);
  EXPECT_EQ(Decoded(EncodePng(colour, {.alpha = true})).data, colour.data);
  EXPECT_EQ(Decoded(EncodePng(colour, {.interlaced = true})).data, colour.data);
  EXPECT_EQ(Decoded(EncodePng(grey), {.channels = 1}).data, grey.data);
  EXPECT_EQ(Decoded(EncodePng(grey, {.alpha = true}), {.channels = 1}).data, grey.data);

  Pixels indexes = NoisyPixels(13, 17, 1);
  for (uint8_t& index : indexes.data) index &= 3;
  const std::vector<uint8_t> palette = {1, 2, 3, 50, 60, 70, 200, 0, 255, 9, 8, 7};
  for (const int bits : {2, 8}) {
    const Pixels pixels = Decoded(EncodePng(indexes, {.bit_depth = bits, .palette = palette}));
    for (size_t i = 0; i < indexes.data.size(); ++i) {
      for (size_t c = 0; c < 3; ++c) EXPECT_EQ(pixels.data[3 * i + c], palette[3u * indexes.data[i] + c]);
    }
  }
  const Pixels stretched = Decoded(EncodePng(indexes, {.bit_depth = 2}), {.channels = 1});
  for (size_t i = 0; i < indexes.data.size(); ++i) EXPECT_EQ(stretched.data[i], indexes.data[i] * 85);
}

TEST(DecodePng, ChannelsAreConverted) {
  const Pixels colour = NoisyPixels(9, 5, 3), grey = NoisyPixels(9, 5, 1);
  const Pixels three = Decoded(EncodePng(grey)), one = Decoded(EncodePng(colour), {.channels = 1});
  for (size_t i = 0; i < grey.data.size(); ++i) {
    for (size_t c = 0; c < 3; ++c) EXPECT_EQ(three.data[3 * i + c], grey.data[i]);
    const double luma = 0.299 * colour.data[3 * i] + 0.587 * colour.data[3 * i + 1] + 0.114 * colour.data[3 * i + 2];
    EXPECT_NEAR(one.data[i], luma, 0.5001);
  }
}

TEST(DecodePng, SixteenBitsAreRefused) {
  EXPECT_THAT(Reason(EncodePng(NoisyPixels(4, 4, 3), {.bit_depth = 16})), HasSubstr("16 bits"));
  EXPECT_THAT(Reason(EncodePng(NoisyPixels(4, 4, 1), {.bit_depth = 16, .alpha = true})), HasSubstr("16 bits"));
}

TEST(DecodePng, EveryCutAndEveryDamagedByteOfItsDataIsSeen) {
  const std::string file = EncodePng(NoisyPixels(8, 8, 3));
  for (size_t length = 8; length < file.size(); ++length) {
    EXPECT_THAT(Reason(file.substr(0, length)), HasSubstr("damaged PNG: ")) << "cut to " << length;
  }
  for (size_t i = 8; i < file.size() - 4; ++i) {
    std::string damaged = file;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x11);
    Reason(damaged);
  }
}

TEST(DecodePng, HugeCommentsTakeNoMemory) {
  const std::string file = EncodePng(NoisyPixels(8, 8, 3), {.comment = std::string(6'000'000, 'x')});
  EXPECT_EQ(Decoded(file).data, NoisyPixels(8, 8, 3).data);
}

TEST(Decode, TheContentsTellWhatItIs) {
  EXPECT_EQ(Reason(""), "the file is empty");
  EXPECT_THAT(Reason("This is no picture"), HasSubstr("neither a JPEG nor a PNG: it begins with \"This is \""));
  EXPECT_THAT(Reason(std::string("\xFF\xD8", 2)), HasSubstr("neither a JPEG nor a PNG: it begins with \"\\xff\\xd8\""));
  EXPECT_THAT(Reason("GIF89a…"), HasSubstr("GIF89a"));
}

TEST(Decode, NotMoreMemoryThanAllowed) {
  const Pixels colour = NoisyPixels(300, 200, 3);
  for (const std::string& file :
       {EncodeJpeg(colour), EncodeJpeg(colour, {.progressive = true}), EncodePng(colour), EncodePng(NoisyPixels(300, 200, 1))}) {
    Pixels pixels;
    const absl::Status status = Decode(file, {.most_bytes = 100'000}, pixels);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_GE(pixels.decode_bytes, 300 * 200 * 3);
    EXPECT_EQ(pixels.data.capacity(), 0u);
    EXPECT_TRUE(Decode(file, {.most_bytes = pixels.decode_bytes}, pixels).ok());
    EXPECT_EQ(pixels.data.capacity(), 300u * 200 * 3);
  }
}

// A header may claim any size: it is not believed with memory.
TEST(Decode, AHugePictureIsRefusedByItsHeader) {
  std::string jpeg = EncodeJpeg(SmoothPixels(16, 16, 3));
  const size_t frame = jpeg.find("\xFF\xC0");
  ASSERT_NE(frame, std::string::npos);
  for (const size_t at : {5, 7}) jpeg[frame + at] = static_cast<char>(0xFF);
  EXPECT_THAT(Reason(jpeg), HasSubstr("pixels, more than 100000000"));
}

TEST(Decode, GarbageNeverCrashes) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::vector<std::string> files = {EncodeJpeg(SmoothPixels(24, 24, 3)), EncodeJpeg(SmoothPixels(24, 24, 3), {.progressive = true}),
                                          EncodePng(NoisyPixels(24, 24, 3)), EncodePng(NoisyPixels(24, 24, 1), {.interlaced = true})};
  Pixels pixels;
  int refused = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string file = files[static_cast<size_t>(round) % files.size()];
    for (int change = 0; change < 3; ++change) file[3 + random() % (file.size() - 3)] = static_cast<char>(random());
    const absl::Status status = Decode(file, {.most_bytes = 1 << 20}, pixels);
    refused += status.ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace lockstep::dataset
