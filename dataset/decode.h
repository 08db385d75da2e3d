#pragma once
// From a file's bytes to pixels. JPEG (grey, colour; baseline and progressive) by libjpeg-turbo, PNG (8 bits and less: grey, colour,
// palette; alpha is dropped) by libpng, told apart by their first bytes and not by the file's name. EXIF orientation is not
// applied, as in Keras. One channel from colour: JPEG's own luma; for PNG 0.299 R + 0.587 G + 0.114 B.
//
// What cannot be decoded whole is an error: nothing is filled with grey. What libjpeg warns of without having to guess at a pixel
// (stray bytes between its markers, odd version numbers) is no error.
//
// Thread-safe: no state.

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace lockstep::dataset {

// More pixels than this are refused: a small file can claim to be a huge picture.
inline constexpr int64_t kMostPixels = 100'000'000;

struct Pixels {
  int height = 0;
  int width = 0;
  int channels = 3;
  std::vector<uint8_t> data;  // rows of interleaved channels; keeps its capacity from picture to picture
  // What decoding took or would have taken, `data` and the decoder's own buffers together; 0 where that was not found out.
  int64_t decode_bytes = 0;
};

struct DecodeOptions {
  int channels = 3;  // 1 or 3
  // A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as it is at least this large; 0: at full size.
  int least_height = 0;
  int least_width = 0;
  // Found out before anything of that size is allocated.
  int64_t most_bytes = std::numeric_limits<int64_t>::max();
};

// InvalidArgument says what is wrong with the picture: not a JPEG or PNG, empty, cut short, CMYK, 16 bits, too large, damaged.
// ResourceExhausted: it would take pixels.decode_bytes, which are more than options.most_bytes.
absl::Status Decode(std::string_view file, const DecodeOptions& options, Pixels& pixels);

}  // namespace lockstep::dataset
