#pragma once
// From a file's bytes to pixels. JPEG (grey, colour; baseline and progressive) by libjpeg-turbo, PNG (8 bits and less: grey,
// colour, palette; alpha is dropped) by libpng, told apart by their first bytes and not by the file's name. EXIF orientation is
// not applied, as in Keras. One channel from colour: JPEG's own luma; for PNG 0.299 R + 0.587 G + 0.114 B.
//
// What cannot be decoded whole is an error: nothing is filled with grey. Thread-safe: no state.

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep::dataset {

// More pixels than this are refused: a small file can claim to be a huge picture.
inline constexpr int64_t kMostPixels = 100'000'000;

struct Pixels {
  int height = 0;
  int width = 0;
  int channels = 3;
  std::vector<uint8_t> data;  // rows of interleaved channels; keeps its capacity from picture to picture
};

struct DecodeOptions {
  int channels = 3;  // 1 or 3
  // A JPEG may be decoded at n/8 of its size as long as it is at least this large; 0: at full size.
  int least_height = 0;
  int least_width = 0;
};

// InvalidArgument says what is wrong with the picture: not a JPEG or PNG, empty, cut short, CMYK, 16 bits, too large, damaged.
absl::Status Decode(std::string_view file, const DecodeOptions& options, Pixels& pixels);

}  // namespace lockstep::dataset
