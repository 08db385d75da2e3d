#pragma once
// Resizes a picture and turns its pixels into floats in one go, as tf.image.resize does it (half-pixel centres, weights that
// leave the picture dropped and the rest made to sum to one): rows are combined first, then columns of the combined row.
//
// Same bits on every processor: plain multiplications and additions in a fixed order, however wide the vectors.
// A Resizer belongs to one thread: it keeps the tables of the last source size, and scratch.

#include <cstdint>
#include <vector>

#include "dataset/decode.h"
#include "dataset/image.h"

namespace lockstep::dataset {

class Resizer {
 public:
  explicit Resizer(const ImageOptions& options);

  // `out`: height × width × channels floats. REQUIRES: pixels.channels == options.channels, and it is not empty.
  void Run(const Pixels& pixels, float* out);

 private:
  // For each target place: the first source place, and `taps` weights (zero beyond what it uses).
  struct Table {
    int source = -1;
    int taps = 0;
    std::vector<int> first;
    std::vector<float> weights;
  };
  void Prepare(int source, int target, Table& table) const;

  const ImageOptions options_;
  std::vector<float> multiply_, add_;  // by channel: x · multiply + add
  Table rows_, columns_;
  std::vector<float> row_;
};

}  // namespace lockstep::dataset
