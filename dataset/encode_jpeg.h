#pragma once
// Makes JPEG files, for programs and tests that make data sets. Thread-safe: no state.

#include <string>

#include "dataset/decode.h"

namespace lockstep::dataset {

struct JpegOptions {
  int quality = 95;
  bool progressive = false;
  bool subsampled = true;  // colour at half the size
  bool cmyk = false;       // pixels of four channels
};

// Memory errors, which end the program, apart, it cannot fail. REQUIRES: 1, 3 or, for cmyk, 4 channels.
std::string EncodeJpeg(const Pixels& pixels, const JpegOptions& options = {});

}  // namespace lockstep::dataset
