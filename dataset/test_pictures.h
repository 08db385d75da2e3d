#pragma once
// Pictures for tests, and files of every kind made of them. Errors end the test program.

#include <cstdint>
#include <string>
#include <vector>

#include "dataset/decode.h"
#include "dataset/encode_jpeg.h"

namespace lockstep::dataset {

// Smooth gradients with soft spots, so that what survives JPEG is close to what went in.
Pixels SmoothPixels(int height, int width, int channels, int seed = 0);
// Every byte by itself.
Pixels NoisyPixels(int height, int width, int channels, int seed = 0);

struct PngOptions {
  int bit_depth = 8;   // 16: each byte twice; 1, 2, 4: grey or palette, from the byte's lowest bits
  bool alpha = false;  // an opaque channel more
  bool interlaced = false;
  std::vector<uint8_t> palette;  // RGB each; then the pixels have one channel, of indexes
  std::string comment;           // compressed text before the picture
};
std::string EncodePng(const Pixels& pixels, const PngOptions& options = {});

// Mean of |a − b| over all bytes. REQUIRES: equal sizes.
double MeanDifference(const std::vector<uint8_t>& a, const std::vector<uint8_t>& b);

}  // namespace lockstep::dataset
