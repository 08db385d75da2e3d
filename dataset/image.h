#pragma once
// What becomes of a picture: its size, how it is resized, and how its pixels become floats. Plain data.

#include <optional>
#include <string_view>
#include <vector>

namespace lockstep::dataset {

// As tf.image.resize names them. kArea weighs source pixels by how much of them each target pixel covers.
enum class Method { kNearest, kBilinear, kBicubic, kArea };
std::optional<Method> ParseMethod(std::string_view name);

struct ImageOptions {
  int height = 0;
  int width = 0;
  int channels = 3;  // 1 or 3
  Method method = Method::kBilinear;
  bool antialias = true;  // of kBilinear and kBicubic: the filter widens with the shrinking
  // x · scale for x in 0 … 255, then (· − mean) / std by channel; empty, one value for all channels, or one each.
  double scale = 1.0;
  std::vector<double> mean, std;
  // JPEG only: decode at full size. Otherwise at the smallest of 1/8, 1/4, 1/2 and whole that is not smaller than the target in either
  // direction (libjpeg-turbo's other scales are slower than whole); the shrinking that is left is then done by the resize.
  bool full_decode = false;
};

}  // namespace lockstep::dataset
