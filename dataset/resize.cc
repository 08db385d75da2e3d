#include "dataset/resize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace lockstep::dataset {
namespace {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define LOCKSTEP_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LOCKSTEP_VECTOR_CLONES
#endif

double Triangle(double x) { return std::max(0.0, 1.0 - std::fabs(x)); }

// Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5.
double Cubic(double x) {
  x = std::fabs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

// Which source places [Begin, End) a target place is made of, and how much of each, not yet made to sum to one.
class Filter {
 public:
  Filter(const ImageOptions& options, int source, int target)
      : method_(options.method),
        source_(source),
        ratio_(static_cast<double>(source) / target),
        stretch_(options.antialias ? std::max(ratio_, 1.0) : 1.0),
        radius_((method_ == Method::kBicubic ? 2.0 : 1.0) * stretch_) {}

  int Begin(int i) const {
    switch (method_) {
      case Method::kNearest: return std::min(static_cast<int>(Centre(i)), source_ - 1);
      case Method::kArea: return static_cast<int>(i * ratio_ + kRounding);
      default: return std::max(0, static_cast<int>(std::floor(Centre(i) - radius_ + 0.5)));
    }
  }
  int End(int i) const {
    switch (method_) {
      case Method::kNearest: return Begin(i) + 1;
      case Method::kArea: return std::min(source_, static_cast<int>(std::ceil((i + 1) * ratio_ - kRounding)));
      default: return std::min(source_, static_cast<int>(std::floor(Centre(i) + radius_ + 0.5)));
    }
  }
  double Weight(int i, int k) const {
    switch (method_) {
      case Method::kNearest: return 1;
      case Method::kArea: return std::min(k + 1.0, (i + 1) * ratio_) - std::max<double>(k, i * ratio_);
      case Method::kBilinear: return Triangle((k + 0.5 - Centre(i)) / stretch_);
      case Method::kBicubic: return Cubic((k + 0.5 - Centre(i)) / stretch_);
    }
    return 0;
  }

 private:
  static constexpr double kRounding = 1e-9;  // i · ratio may miss a whole number by less than this
  double Centre(int i) const { return (i + 0.5) * ratio_; }

  const Method method_;
  const int source_;
  const double ratio_, stretch_, radius_;
};

// row[i] = Σ_k weight[k] · source[k][i], for `count` values. A run of them is summed up before it is stored.
LOCKSTEP_VECTOR_CLONES void CombineRows(const uint8_t* source, size_t stride, const float* weights, int taps, size_t count, float* row) {
  constexpr size_t kRun = 64;
  size_t i = 0;
  for (; i + kRun <= count; i += kRun) {
    float sums[kRun];
    for (size_t j = 0; j < kRun; ++j) sums[j] = weights[0] * static_cast<float>(source[i + j]);
    for (int k = 1; k < taps; ++k) {
      const uint8_t* from = source + stride * static_cast<size_t>(k) + i;
      for (size_t j = 0; j < kRun; ++j) sums[j] += weights[k] * static_cast<float>(from[j]);
    }
    for (size_t j = 0; j < kRun; ++j) row[i + j] = sums[j];
  }
  for (; i < count; ++i) {
    float sum = weights[0] * static_cast<float>(source[i]);
    for (int k = 1; k < taps; ++k) sum += weights[k] * static_cast<float>(source[stride * static_cast<size_t>(k) + i]);
    row[i] = sum;
  }
}

// Three channels in the lanes of one vector: `row` and `out` have a fourth value to spare at the end, which is overwritten by
// the next pixel.
using Lanes = float __attribute__((vector_size(16)));
inline Lanes Load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

// out = Σ_k weight[k] · row[first + k], scaled. kTaps: as many, known to the compiler; 0: `taps`.
template <int kTaps>
__attribute__((always_inline)) inline void CombineColumnsOf(const float* row, const int* first, const float* weights, int taps, int width,
                                                            Lanes multiply, Lanes add, float* out) {
  const int count = kTaps > 0 ? kTaps : taps;
  const auto pixel = [&](int x) __attribute__((always_inline)) {
    const float* from = row + 3 * first[x];
    const float* weight = weights + static_cast<ptrdiff_t>(x) * count;
    Lanes sum = Load(from) * weight[0];
    for (int k = 1; k < count; ++k) sum += Load(from + 3 * k) * weight[k];
    return sum * multiply + add;
  };
  for (int x = 0; x + 1 < width; ++x) {
    const Lanes sum = pixel(x);
    std::memcpy(out + 3 * x, &sum, sizeof(sum));
  }
  const Lanes last = pixel(width - 1);
  for (int c = 0; c < 3; ++c) out[3 * (width - 1) + c] = last[c];
}

LOCKSTEP_VECTOR_CLONES void CombineColumns3(const float* row, const int* first, const float* weights, int taps, int width,
                                            const float* multiply, const float* add, float* out) {
  const Lanes m = {multiply[0], multiply[1], multiply[2], 0}, a = {add[0], add[1], add[2], 0};
  switch (taps) {
    case 2: return CombineColumnsOf<2>(row, first, weights, taps, width, m, a, out);
    case 3: return CombineColumnsOf<3>(row, first, weights, taps, width, m, a, out);
    case 4: return CombineColumnsOf<4>(row, first, weights, taps, width, m, a, out);
    case 5: return CombineColumnsOf<5>(row, first, weights, taps, width, m, a, out);
    default: return CombineColumnsOf<0>(row, first, weights, taps, width, m, a, out);
  }
}

void CombineColumns1(const float* row, const int* first, const float* weights, int taps, int width, float multiply, float add, float* out) {
  for (int x = 0; x < width; ++x) {
    const float* weight = weights + static_cast<ptrdiff_t>(x) * taps;
    float sum = row[first[x]] * weight[0];
    for (int k = 1; k < taps; ++k) sum += row[first[x] + k] * weight[k];
    out[x] = sum * multiply + add;
  }
}

double ChannelValue(const std::vector<double>& values, int channel, double otherwise) {
  if (values.empty()) return otherwise;
  return values.size() == 1 ? values[0] : values[static_cast<size_t>(channel)];
}

}  // namespace

std::optional<Method> ParseMethod(std::string_view name) {
  if (name == "nearest") return Method::kNearest;
  if (name == "bilinear") return Method::kBilinear;
  if (name == "bicubic") return Method::kBicubic;
  if (name == "area") return Method::kArea;
  return std::nullopt;
}

Resizer::Resizer(const ImageOptions& options) : options_(options) {
  for (int c = 0; c < options.channels; ++c) {
    const double mean = ChannelValue(options.mean, c, 0), std = ChannelValue(options.std, c, 1);
    multiply_.push_back(static_cast<float>(options.scale / std));
    add_.push_back(static_cast<float>(-mean / std));
  }
}

void Resizer::Prepare(int source, int target, Table& table) const {
  if (table.source == source) return;
  table.source = source;
  const Filter filter(options_, source, target);
  // All places get the same number of taps; one that would reach beyond the source begins earlier, with zeros in front.
  int taps = 1;
  for (int i = 0; i < target; ++i) taps = std::max(taps, filter.End(i) - filter.Begin(i));
  table.taps = taps;
  table.first.resize(static_cast<size_t>(target));
  table.weights.assign(static_cast<size_t>(target) * static_cast<size_t>(taps), 0);
  for (int i = 0; i < target; ++i) {
    const int begin = filter.Begin(i), end = filter.End(i), first = std::min(begin, source - taps);
    float* weights = table.weights.data() + static_cast<ptrdiff_t>(i) * taps;
    double total = 0;
    for (int k = begin; k < end; ++k) total += filter.Weight(i, k);
    for (int k = begin; k < end; ++k) weights[k - first] = static_cast<float>(filter.Weight(i, k) / total);
    table.first[static_cast<size_t>(i)] = first;
  }
}

void Resizer::Run(const Pixels& pixels, float* out) {
  Prepare(pixels.height, options_.height, rows_);
  Prepare(pixels.width, options_.width, columns_);
  const size_t count = static_cast<size_t>(pixels.width) * static_cast<size_t>(pixels.channels);
  row_.resize(count + 4);
  for (int y = 0; y < options_.height; ++y) {
    const float* weights = rows_.weights.data() + static_cast<ptrdiff_t>(y) * rows_.taps;
    int taps = rows_.taps;
    while (taps > 1 && weights[taps - 1] == 0) --taps;
    CombineRows(pixels.data.data() + count * static_cast<size_t>(rows_.first[static_cast<size_t>(y)]), count, weights, taps, count,
                row_.data());
    float* target = out + static_cast<ptrdiff_t>(y) * options_.width * options_.channels;
    if (options_.channels == 3) {
      CombineColumns3(row_.data(), columns_.first.data(), columns_.weights.data(), columns_.taps, options_.width, multiply_.data(),
                      add_.data(), target);
    } else {
      CombineColumns1(row_.data(), columns_.first.data(), columns_.weights.data(), columns_.taps, options_.width, multiply_[0], add_[0],
                      target);
    }
  }
}

}  // namespace lockstep::dataset
