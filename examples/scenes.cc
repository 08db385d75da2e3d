#include "examples/scenes.h"

#include <algorithm>
#include <cmath>
#include <functional>

namespace lockstep {
namespace {

constexpr float kPi = 3.14159265f;

struct Color {
  float r = 0, g = 0, b = 0;
  Color operator+(Color o) const { return {r + o.r, g + o.g, b + o.b}; }
  Color operator*(Color o) const { return {r * o.r, g * o.g, b * o.b}; }
  Color operator*(float s) const { return {r * s, g * s, b * s}; }
};

Color Mix(Color a, Color b, float t) { return a * (1 - t) + b * t; }
float Clamp(float x) { return std::clamp(x, 0.0f, 1.0f); }
float Smooth(float from, float to, float x) {
  const float t = Clamp((x - from) / (to - from));
  return t * t * (3 - 2 * t);
}

// SplitMix64: the same numbers with every standard library.
uint64_t Hash(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(Hash(seed)) {}
  uint64_t Next() { return state_ = Hash(state_); }
  float In(float from, float to) { return from + (to - from) * static_cast<float>(Next() >> 40) * 0x1p-24f; }
  Color In(Color from, Color to) { return Mix(from, to, In(0, 1)) * Color{In(0.85f, 1.15f), In(0.85f, 1.15f), In(0.85f, 1.15f)}; }

 private:
  uint64_t state_;
};

float At(int x, int y, uint64_t seed) {
  const uint64_t cell = (static_cast<uint64_t>(static_cast<uint32_t>(x)) << 32) | static_cast<uint32_t>(y);
  return static_cast<float>(Hash(cell ^ seed) >> 40) * 0x1p-24f;
}

// Value noise in 0 … 1 with features of size 1.
float Noise(float x, float y, uint64_t seed) {
  const float fx = std::floor(x), fy = std::floor(y);
  const int ix = static_cast<int>(fx), iy = static_cast<int>(fy);
  const float tx = Smooth(0, 1, x - fx), ty = Smooth(0, 1, y - fy);
  const float top = At(ix, iy, seed) * (1 - tx) + At(ix + 1, iy, seed) * tx;
  const float bottom = At(ix, iy + 1, seed) * (1 - tx) + At(ix + 1, iy + 1, seed) * tx;
  return top * (1 - ty) + bottom * ty;
}

// Octaves of noise, each twice as fine and half as strong; in 0 … 1.
float Fractal(float x, float y, uint64_t seed, int octaves) {
  float sum = 0, weight = 0.5f, total = 0;
  for (int i = 0; i < octaves; ++i, x *= 2.03f, y *= 2.03f, weight *= 0.5f) {
    sum += weight * Noise(x, y, seed + static_cast<uint64_t>(i) * 7919);
    total += weight;
  }
  return sum / total;
}

// The colour at a place: x to the right, y down from 0 at the top to 1 at the bottom; 0 is the middle in x.
using Painter = std::function<Color(float x, float y)>;

Color DaySky(Random& random) { return random.In({0.25f, 0.45f, 0.8f}, {0.55f, 0.7f, 0.9f}); }

Painter Beach(Random& random) {
  const Color sky = DaySky(random), sea = random.In({0.05f, 0.35f, 0.5f}, {0.1f, 0.6f, 0.65f});
  const Color sand = random.In({0.75f, 0.62f, 0.42f}, {0.93f, 0.85f, 0.68f});
  const float horizon = random.In(0.25f, 0.45f), shore = random.In(0.55f, 0.75f), slope = random.In(-0.25f, 0.25f);
  const float umbrella_x = random.In(-0.6f, 0.6f), umbrella_y = random.In(0.68f, 0.85f), size = random.In(0.06f, 0.14f);
  const Color cloth = random.In({0.9f, 0.15f, 0.1f}, {0.95f, 0.8f, 0.2f});
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    if (y < horizon) return Mix(sky, {0.9f, 0.93f, 0.95f}, Smooth(0, horizon, y) * 0.7f + 0.3f * Fractal(x * 2, y * 6, seed, 4));
    const float line = shore + slope * x + 0.05f * (Fractal(x * 5, 0, seed + 1, 3) - 0.5f);
    const float dx = (x - umbrella_x) / size, dy = (y - umbrella_y) / size;
    if (dy < 0 && dx * dx + dy * dy * 2 < 1) return std::fmod(std::fabs(dx) * 4, 2.0f) < 1 ? cloth : Color{0.95f, 0.95f, 0.9f};
    if (std::fabs(dx) < 0.06f && dy >= 0 && dy < 0.8f) return Color{0.5f, 0.4f, 0.3f};
    if (y < line) {
      const float depth = (line - y) / (line - horizon);
      const float wave = Fractal(x * 6, y * 60, seed + 2, 3);
      return Mix(Mix(sea * 1.5f, sea, Smooth(0, 0.5f, depth)), {0.95f, 0.97f, 0.97f},
                 Smooth(0.12f, 0, depth) * 0.9f + 0.35f * Smooth(0.6f, 0.8f, wave));
    }
    const float wet = Smooth(0.08f, 0, y - line);
    return sand * (0.8f + 0.35f * Fractal(x * 25, y * 40, seed + 3, 4)) * (1 - 0.35f * wet);
  };
}

Painter Bricks(Random& random) {
  const Color brick = random.In({0.45f, 0.2f, 0.13f}, {0.75f, 0.5f, 0.38f}), mortar = random.In({0.5f, 0.48f, 0.45f}, {0.8f, 0.78f, 0.72f});
  const float rows = random.In(6, 15), aspect = random.In(2, 3), tilt = random.In(-0.25f, 0.25f), joint = random.In(0.06f, 0.14f);
  const float keystone = random.In(-0.4f, 0.4f), light = random.In(-0.5f, 0.5f);
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    const float px = (x * std::cos(tilt) - y * std::sin(tilt)) * (1 + keystone * (y - 0.5f));
    const float py = (x * std::sin(tilt) + y * std::cos(tilt)) * (1 + keystone * x * 0.5f);
    const float row = std::floor(py * rows), along = px * rows / aspect + (std::fmod(std::fabs(row), 2.0f) < 1 ? 0 : 0.5f);
    const float column = std::floor(along), fx = (along - column) * aspect, fy = py * rows - row;
    const float grain = Fractal(px * 60, py * 60, seed, 3);
    const float edge = std::min({fx, aspect - fx, fy, 1 - fy}) + (grain - 0.5f) * 0.06f;
    const float own = At(static_cast<int>(column), static_cast<int>(row), seed);
    const Color face = brick * (0.6f + 0.6f * own + 0.4f * (grain - 0.5f));
    return Mix(mortar * (0.75f + 0.4f * grain), face, Smooth(joint * 0.7f, joint * 1.3f, edge)) * (1 + light * x);
  };
}

Painter CityAtNight(Random& random) {
  const Color sky = random.In({0.01f, 0.02f, 0.08f}, {0.15f, 0.1f, 0.2f}), glow = random.In({0.4f, 0.2f, 0.1f}, {0.3f, 0.3f, 0.4f});
  const Color lamp = random.In({1, 0.75f, 0.35f}, {0.9f, 0.95f, 1});
  const float width = random.In(0.1f, 0.22f), base = random.In(0.05f, 0.3f), lit = random.In(0.25f, 0.6f);
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    Color color = Mix(sky, glow, Smooth(0.1f, 0.9f, y));
    for (int layer = 0; layer < 2; ++layer) {
      const float w = layer == 0 ? width * 0.7f : width;
      const float at = x / w + 50 + static_cast<float>(layer) * 0.37f;
      const int house = static_cast<int>(at);
      const float top = base + static_cast<float>(layer) * 0.15f + 0.5f * At(house, layer, seed);
      if (y < top) continue;
      color = Mix(sky, glow, 0.15f) * (layer == 0 ? 0.9f : 0.5f) + Color{0.02f, 0.02f, 0.03f};
      const float cells = std::floor(4 + 4 * At(house, layer + 2, seed));
      const float wx = (at - static_cast<float>(house)) * cells, wy = (y - top) * cells / w * 0.8f;
      const int ix = static_cast<int>(wx), iy = static_cast<int>(wy);
      const float fx = wx - static_cast<float>(ix), fy = wy - static_cast<float>(iy);
      if (fx > 0.25f && fx < 0.8f && fy > 0.3f && fy < 0.8f && At(house * 64 + ix, iy, seed + 9) < lit) {
        color = lamp * (0.45f + 0.6f * At(house * 64 + ix, iy, seed + 10)) * (layer == 0 ? 0.6f : 1);
      }
    }
    return color;
  };
}

Painter Clouds(Random& random) {
  const Color sky = DaySky(random), shade = random.In({0.45f, 0.48f, 0.55f}, {0.75f, 0.75f, 0.8f});
  const Color bright = random.In({0.95f, 0.95f, 0.97f}, {1, 0.92f, 0.85f});
  const float scale = random.In(1.5f, 4), cover = random.In(0.38f, 0.55f), stretch = random.In(1, 2.2f), lx = random.In(-0.2f, 0.2f);
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    const float density = Fractal(x * scale, y * scale * stretch, seed, 6);
    const float toward_light = Fractal((x + lx) * scale, (y - 0.12f) * scale * stretch, seed, 4);
    const Color cloud = Mix(shade, bright, Clamp(0.55f + 3 * (density - toward_light)));
    return Mix(Mix(sky * 0.8f, sky * 1.25f, y), cloud, Smooth(cover, cover + 0.16f, density));
  };
}

Painter Desert(Random& random) {
  const Color sky = DaySky(random), sand = random.In({0.7f, 0.42f, 0.2f}, {0.92f, 0.7f, 0.42f});
  const float horizon = random.In(0.2f, 0.4f), side = random.In(0, 1) < 0.5f ? -1 : 1, ripple = random.In(60, 140);
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    Color color = Mix(sky, {0.95f, 0.88f, 0.75f}, Smooth(0, horizon, y) * 0.8f);
    for (int dune = 0; dune < 4; ++dune) {
      const auto n = static_cast<float>(dune);
      const float size = 1 / (0.5f + 0.55f * n), along = x * size * 1.6f + n * 7;
      const float crest = 1 - std::fabs(2 * Noise(along, n, seed) - 1);  // a ridge: sharp where two slopes meet
      const float line = horizon + n * 0.17f - crest * 0.16f + 0.05f;
      if (y < line) continue;
      const float left = 1 - std::fabs(2 * Noise(along - 0.05f, n, seed) - 1);
      const float slope = Smooth(-0.04f, 0.04f, side * (crest - left) - 0.1f * (y - line));
      const float grain = Noise(x * 8 + 0.6f * std::sin(y * 20), y * ripple, seed + 5);
      color = sand * (0.45f + 0.6f * slope + 0.15f * grain) * (1 - 0.12f * (y - line));
    }
    return color;
  };
}

Painter Flower(Random& random) {
  const Color leaf = random.In({0.08f, 0.25f, 0.05f}, {0.3f, 0.5f, 0.2f});
  const std::array<Color, 5> petals = {
      {{0.9f, 0.2f, 0.3f}, {0.95f, 0.8f, 0.2f}, {0.7f, 0.35f, 0.85f}, {0.95f, 0.95f, 0.92f}, {0.95f, 0.55f, 0.2f}}};
  const Color petal = petals[random.Next() % petals.size()] * random.In(0.8f, 1.1f),
              heart = random.In({0.35f, 0.2f, 0.05f}, {0.95f, 0.75f, 0.1f});
  const float cx = random.In(-0.25f, 0.25f), cy = random.In(0.35f, 0.6f), radius = random.In(0.22f, 0.42f), turn = random.In(0, kPi);
  const float count = std::floor(random.In(5, 13)), bend = random.In(-0.3f, 0.3f);
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    Color color = leaf * (0.4f + 1.1f * Fractal(x * 3, y * 3, seed, 3));
    color = Mix(color, leaf * Color{1.6f, 1.4f, 1.2f}, 0.5f * Smooth(0.62f, 0.75f, Noise(x * 5, y * 5, seed + 1)));
    const float dx = x - cx, dy = y - cy, far = std::sqrt(dx * dx + dy * dy) / radius, angle = std::atan2(dy, dx) + turn;
    if (dy > 0 && std::fabs(dx - bend * dy) < 0.018f) color = leaf * 1.3f;
    const float lobe = std::fabs(std::cos(angle * count / 2));
    const float reach = 0.45f + 0.55f * std::sqrt(lobe);
    if (far < reach) {
      const float vein = Noise(angle * 30, far * 3, seed + 2);
      color = petal * (0.55f + 0.35f * far + 0.3f * lobe + 0.15f * (vein - 0.5f));
    }
    if (far < 0.25f) color = heart * (0.6f + 0.7f * Noise(dx * 120, dy * 120, seed + 3));
    return color;
  };
}

Painter Forest(Random& random) {
  const Color leaves = random.In({0.1f, 0.3f, 0.08f}, {0.45f, 0.45f, 0.12f}), bark = random.In({0.15f, 0.1f, 0.07f}, {0.4f, 0.32f, 0.25f});
  const Color mist = random.In({0.55f, 0.65f, 0.5f}, {0.8f, 0.82f, 0.75f});
  const float ground = random.In(0.72f, 0.88f), sun = random.In(-0.5f, 0.5f);
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    const float shine = std::exp(-6 * ((x - sun) * (x - sun) + (y - 0.3f) * (y - 0.3f)));
    Color color = Mix(leaves * (0.4f + 0.9f * Fractal(x * 9, y * 9, seed, 5)), mist, 0.25f + 0.5f * shine);
    for (int layer = 0; layer < 3; ++layer) {
      const auto n = static_cast<float>(layer);
      const float spacing = 0.1f + 0.09f * n, at = x / spacing + 20 + 0.4f * n + 0.15f * (Noise(y * 3, n, seed + 1) - 0.5f);
      const int trunk = static_cast<int>(at);
      const float half = 0.08f + 0.16f * At(trunk, layer, seed), middle = 0.3f + 0.4f * At(trunk, layer + 3, seed);
      const float offset = (at - static_cast<float>(trunk) - middle) / half;
      if (std::fabs(offset) < 1 && y < ground + 0.06f * n) {
        const float grain = Fractal(x * 60, y * 6, seed + 2, 3);
        color = Mix(bark * (0.5f + 0.8f * grain) * (1 - 0.35f * offset), mist, 0.45f - 0.2f * n);
      }
    }
    if (y > ground) color = Mix(color, leaves * bark * 3 * (0.4f + Fractal(x * 20, y * 30, seed + 3, 4)), Smooth(ground, ground + 0.1f, y));
    const float crown = Fractal(x * 7, y * 7, seed + 4, 5);
    return Mix(color, leaves * (0.3f + 1.3f * crown), Smooth(0.5f, 0.6f, crown) * Smooth(0.6f, 0.1f, y));
  };
}

Painter Mountains(Random& random) {
  const Color sky = random.In({0.35f, 0.5f, 0.75f}, {0.85f, 0.7f, 0.6f}), rock = random.In({0.25f, 0.25f, 0.3f}, {0.45f, 0.38f, 0.33f});
  const Color meadow = random.In({0.15f, 0.28f, 0.1f}, {0.4f, 0.42f, 0.2f});
  const float peak = random.In(0.15f, 0.35f), snow = random.In(0.3f, 0.55f), side = random.In(0, 1) < 0.5f ? -1 : 1;
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    Color color = Mix(sky, {0.92f, 0.92f, 0.92f}, 0.6f * Smooth(0, 0.6f, y) + 0.25f * Fractal(x * 2, y * 5, seed, 4));
    for (int range = 0; range < 3; ++range) {
      const auto n = static_cast<float>(range);
      const auto ridge = [&](float at) {
        const float f = Fractal(at * (2.2f + n) + n * 11, n, seed + 1, 6);
        return peak + 0.2f * n + 0.5f * (1 - n * 0.25f) * std::fabs(2 * f - 1);
      };
      const float line = ridge(x);
      if (y < line) continue;
      const float texture = Fractal(x * 14, y * 14, seed + 2, 5);
      const float lit = Clamp(0.5f + side * 12 * (ridge(x + 0.01f) - line) + 1.6f * (texture - 0.5f));
      Color ground = range == 2 ? meadow * (0.5f + texture) : rock * (0.5f + 0.9f * lit);
      if (range < 2)
        ground = Mix(ground, Color{0.9f, 0.93f, 0.98f} * (0.55f + 0.5f * lit), Smooth(0.05f, -0.05f, y - snow - 0.3f * (texture - 0.5f)));
      color = Mix(ground, sky, range == 0 ? 0.3f : 0.1f * (2 - n));
    }
    return color;
  };
}

Painter StarrySky(Random& random) {
  const Color night = random.In({0.01f, 0.015f, 0.05f}, {0.08f, 0.06f, 0.16f}), dust = random.In({0.3f, 0.25f, 0.35f}, {0.35f, 0.4f, 0.5f});
  const float tilt = random.In(-1.2f, 1.2f), offset = random.In(-0.2f, 0.2f), density = random.In(0.12f, 0.3f),
              hills = random.In(0.78f, 1.0f);
  const uint64_t seed = random.Next();
  return [=](float x, float y) {
    if (y > hills - 0.15f * Fractal(x * 2, 1, seed + 4, 4)) return Color{0.01f, 0.012f, 0.015f};
    const float across = (y - 0.5f) * std::cos(tilt) - x * std::sin(tilt) + offset;
    const float band = std::exp(-18 * across * across) * Smooth(0.25f, 0.75f, Fractal(x * 4, y * 4, seed, 5));
    Color color = night * (0.8f + 0.8f * y) + dust * band;
    for (const float scale : {22.0f, 45.0f}) {
      const float px = x * scale, py = y * scale;
      const int ix = static_cast<int>(std::floor(px)), iy = static_cast<int>(std::floor(py));
      if (At(ix, iy, seed + 1) > density + 0.4f * band) continue;
      const float dx = px - static_cast<float>(ix) - 0.2f - 0.6f * At(ix, iy, seed + 2);
      const float dy = py - static_cast<float>(iy) - 0.2f - 0.6f * At(ix, iy, seed + 3);
      const float warmth = At(ix, iy, seed + 5);
      color = color + Color{0.8f + 0.3f * warmth, 0.9f, 1.15f - 0.4f * warmth} * std::exp(-(dx * dx + dy * dy) * 40) * (0.4f + warmth);
    }
    return color;
  };
}

Painter Sunset(Random& random) {
  const Color high = random.In({0.15f, 0.15f, 0.4f}, {0.5f, 0.3f, 0.5f}), low = random.In({0.95f, 0.4f, 0.15f}, {1, 0.7f, 0.35f});
  const float horizon = random.In(0.5f, 0.72f), sx = random.In(-0.45f, 0.45f), radius = random.In(0.04f, 0.1f);
  const float sy = horizon - random.In(-0.02f, 0.2f);
  const uint64_t seed = random.Next();
  const auto sky = [=](float x, float y) {
    const float far = std::sqrt((x - sx) * (x - sx) + (y - sy) * (y - sy));
    Color color = Mix(high, low, Smooth(0, horizon, y)) + low * (0.5f * std::exp(-4 * far));
    const float cloud = Smooth(0.5f, 0.75f, Fractal(x * 2.5f, y * 12, seed, 5));
    color = Mix(color, Mix(high * 0.7f, low, std::exp(-3 * far)), cloud * 0.7f);
    return Mix(color, {1, 0.93f, 0.7f}, Smooth(radius, radius * 0.8f, far));
  };
  return [=](float x, float y) {
    if (y < horizon) return sky(x, y);
    const float depth = y - horizon, wave = Fractal(x * 5 / (0.2f + depth), depth * 60 / (0.3f + depth), seed + 1, 3) - 0.5f;
    const Color mirrored = sky(x + wave * 0.15f, horizon - depth * 0.8f + wave * 0.08f) * 0.65f;
    const float glitter = std::exp(-std::pow((x - sx) / (0.05f + depth * 0.35f), 2.0f)) * Smooth(0.05f, 0.2f, wave);
    return mirrored + low * glitter;
  };
}

using Maker = Painter (*)(Random&);
constexpr std::array<Maker, kScenes.size()> kMakers = {&Beach,  &Bricks, &CityAtNight, &Clouds,    &Desert,
                                                       &Flower, &Forest, &Mountains,   &StarrySky, &Sunset};

uint8_t Byte(float value) { return static_cast<uint8_t>(std::lround(255 * Clamp(value))); }

}  // namespace

Picture PaintScene(size_t scene, uint64_t seed, int width, int height) {
  Random random(Hash(seed) ^ scene);
  const Painter paint = kMakers[scene](random);
  // The camera: how it is held, how it sees light, and its noise.
  const float roll = random.In(-0.08f, 0.08f), zoom = random.In(0.85f, 1.1f), exposure = random.In(0.8f, 1.2f),
              contrast = random.In(0.85f, 1.2f);
  const Color balance = {random.In(0.88f, 1.12f), 1, random.In(0.88f, 1.12f)};
  const float vignette = random.In(0, 0.5f), grain = random.In(0.01f, 0.05f);
  Picture picture{width, height, std::vector<uint8_t>(static_cast<size_t>(width) * static_cast<size_t>(height) * 3)};
  uint8_t* out = picture.pixels.data();
  for (int row = 0; row < height; ++row) {
    for (int column = 0; column < width; ++column, out += 3) {
      const float u = (static_cast<float>(column) + 0.5f - static_cast<float>(width) / 2) / static_cast<float>(height);
      const float v = (static_cast<float>(row) + 0.5f) / static_cast<float>(height) - 0.5f;
      const Color seen = paint((u * std::cos(roll) - v * std::sin(roll)) * zoom, (u * std::sin(roll) + v * std::cos(roll)) * zoom + 0.5f);
      const float light = exposure * (1 - vignette * (u * u + v * v));
      const Color film = seen * balance * light;
      const auto develop = [&](float value) { return (value - 0.45f) * contrast + 0.45f + grain * (random.In(-1, 1) + random.In(-1, 1)); };
      out[0] = Byte(develop(film.r)), out[1] = Byte(develop(film.g)), out[2] = Byte(develop(film.b));
    }
  }
  return picture;
}

}  // namespace lockstep
