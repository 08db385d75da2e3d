#include "model/random.h"

#include <ATen/ATen.h>

#include <cmath>

namespace lockstep {
namespace {

// The finaliser of SplitMix64: spreads neighbouring seeds and call sites over all keys.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// A stream of 32-bit words that belongs to one call of one layer in one step.
class Stream {
 public:
  explicit Stream(const Frame& frame) {
    const uint64_t key = Mix(Mix(frame.context.seed) ^ Mix(frame.call_site + (uint64_t{1} << 32)));
    key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
    place_ = Mix(Mix(frame.context.step) + static_cast<uint64_t>(frame.context.virtual_replica));
  }
  // Words 4·block … 4·block + 3.
  std::array<uint32_t, 4> Block(uint64_t block) const {
    return Philox4x32({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(place_),
                       static_cast<uint32_t>(place_ >> 32)},
                      key_);
  }

 private:
  std::array<uint32_t, 2> key_;
  uint64_t place_;
};

double Unit(uint32_t word) { return (word >> 8) * 0x1p-24; }

// fill(words, out): makes `kOut` values from each block.
template <typename Fill>
at::Tensor Generate(at::IntArrayRef shape, const at::TensorOptions& options, const Frame& frame, const Fill& fill) {
  // Always made as double or float on the CPU, then moved: the values do not depend on the device.
  at::Tensor result = at::empty(shape, options.device(at::kCPU));
  const int64_t samples = shape.empty() ? 1 : shape[0], each = samples == 0 ? 0 : result.numel() / samples;
  const uint64_t blocks_each = (static_cast<uint64_t>(each) + 3) / 4;
  const Stream stream(frame);
  AT_DISPATCH_FLOATING_TYPES(result.scalar_type(), "random", [&] {
    scalar_t* out = result.data_ptr<scalar_t>();
    for (int64_t sample = 0; sample < samples; ++sample) {
      const uint64_t first = (static_cast<uint64_t>(frame.context.first_sample) + sample) * blocks_each;
      for (int64_t i = 0; i < each; i += 4) {
        const std::array<double, 4> values = fill(stream.Block(first + i / 4));
        for (int64_t k = 0; k < std::min<int64_t>(4, each - i); ++k) out[sample * each + i + k] = static_cast<scalar_t>(values[k]);
      }
    }
  });
  return result.to(options.device());
}

}  // namespace

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0], p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1), static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1],
         static_cast<uint32_t>(p0)};
    k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
  }
  return c;
}

at::Tensor RandomUniform(at::IntArrayRef shape, const at::TensorOptions& options, const Frame& frame) {
  return Generate(shape, options, frame, [](const std::array<uint32_t, 4>& w) {
    return std::array<double, 4>{Unit(w[0]), Unit(w[1]), Unit(w[2]), Unit(w[3])};
  });
}

at::Tensor RandomNormal(at::IntArrayRef shape, const at::TensorOptions& options, const Frame& frame) {
  return Generate(shape, options, frame, [](const std::array<uint32_t, 4>& w) {
    std::array<double, 4> result;
    for (int pair = 0; pair < 2; ++pair) {
      const double radius = std::sqrt(-2 * std::log((w[2 * pair] + 0.5) * 0x1p-32)), angle = 2 * M_PI * Unit(w[2 * pair + 1]);
      result[2 * pair] = radius * std::cos(angle);
      result[2 * pair + 1] = radius * std::sin(angle);
    }
    return result;
  });
}

}  // namespace lockstep
