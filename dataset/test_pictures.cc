#include "dataset/test_pictures.h"

#include <png.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

Pixels Empty(int height, int width, int channels) {
  Pixels pixels;
  pixels.height = height;
  pixels.width = width;
  pixels.channels = channels;
  pixels.data.resize(static_cast<size_t>(height) * static_cast<size_t>(width) * static_cast<size_t>(channels));
  return pixels;
}

}  // namespace

Pixels SmoothPixels(int height, int width, int channels, int seed) {
  Pixels pixels = Empty(height, width, channels);
  uint8_t* out = pixels.data.data();
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < channels; ++c) {
        const double wave = std::sin(0.05 * x * (c + 1) + seed) + std::cos(0.07 * y + c + 0.3 * seed);
        *out++ = static_cast<uint8_t>(128 + 55 * wave);
      }
    }
  }
  return pixels;
}

Pixels NoisyPixels(int height, int width, int channels, int seed) {
  Pixels pixels = Empty(height, width, channels);
  std::mt19937 random(static_cast<unsigned>(seed));
  for (uint8_t& value : pixels.data) value = static_cast<uint8_t>(random());
  return pixels;
}

std::string EncodePng(const Pixels& pixels, const PngOptions& options) {
  std::string file;
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(
      png, &file,
      [](png_structp writer, png_bytep data, size_t bytes) {
        static_cast<std::string*>(png_get_io_ptr(writer))->append(reinterpret_cast<char*>(data), bytes);
      },
      nullptr);
  const int color = !options.palette.empty()
                        ? PNG_COLOR_TYPE_PALETTE
                        : (pixels.channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB) | (options.alpha ? PNG_COLOR_MASK_ALPHA : 0);
  png_set_IHDR(png, info, static_cast<png_uint_32>(pixels.width), static_cast<png_uint_32>(pixels.height), options.bit_depth, color,
               options.interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (!options.palette.empty()) {
    png_set_PLTE(png, info, reinterpret_cast<png_const_colorp>(options.palette.data()), static_cast<int>(options.palette.size() / 3));
  }
  if (!options.comment.empty()) {
    png_text text{};
    text.compression = PNG_TEXT_COMPRESSION_zTXt;
    text.key = const_cast<char*>("Comment");
    text.text = const_cast<char*>(options.comment.data());
    text.text_length = options.comment.size();
    png_set_text(png, info, &text, 1);
  }
  png_write_info(png, info);
  if (options.bit_depth < 8) png_set_packing(png);
  // One row of what libpng wants: bytes twice for 16 bits, an opaque channel for alpha.
  std::vector<std::vector<uint8_t>> rows;
  const uint8_t* from = pixels.data.data();
  for (int y = 0; y < pixels.height; ++y) {
    std::vector<uint8_t>& row = rows.emplace_back();
    for (int x = 0; x < pixels.width; ++x) {
      for (int c = 0; c < pixels.channels; ++c, ++from) row.insert(row.end(), options.bit_depth == 16 ? 2 : 1, *from);
      if (options.alpha) row.insert(row.end(), options.bit_depth == 16 ? 2 : 1, 255);
    }
  }
  std::vector<png_bytep> pointers;
  for (auto& row : rows) pointers.push_back(row.data());
  png_write_image(png, pointers.data());
  png_write_end(png, nullptr);
  png_destroy_write_struct(&png, &info);
  return file;
}

double MeanDifference(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) sum += std::abs(a[i] - b[i]);
  return sum / static_cast<double>(a.size());
}

}  // namespace lockstep::dataset
