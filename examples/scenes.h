#pragma once
// Ten kinds of scenes, each painted anew for every number it is asked for: light, palette, weather, layout and the camera's stand differ,
// what makes the scene does not. For data sets to try things on, which a person can look at and a network can learn.
//
// Thread-safe: no state. The same picture for the same arguments.

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace lockstep {

// Sorted, as the folders will be.
inline constexpr std::array<std::string_view, 10> kScenes = {"beach",  "bricks", "city_at_night", "clouds",     "desert",
                                                             "flower", "forest", "mountains",     "starry_sky", "sunset"};

struct Picture {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> pixels;  // rows of RGB
};

// REQUIRES: scene < kScenes.size(), width and height positive.
Picture PaintScene(size_t scene, uint64_t seed, int width, int height);

}  // namespace lockstep
