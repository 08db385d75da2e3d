#include "model/depthwise_kernels.h"

#include "model/lanes.h"

namespace lockstep {

Taps Taps::Forward(int64_t output, int64_t input, int64_t kernel, int64_t stride, int64_t dilation, int64_t before) {
  Taps taps;
  for (int64_t o = 0; o < output; ++o) {
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t i = o * stride + k * dilation - before;
      if (i >= 0 && i < input) taps.taps_.push_back({k, i});
    }
    taps.EndTarget();
  }
  taps.FindRuns(1, stride);
  return taps;
}

Taps Taps::Backward(int64_t output, int64_t input, int64_t kernel, int64_t stride, int64_t dilation, int64_t before) {
  Taps taps;
  for (int64_t i = 0; i < input; ++i) {
    for (int64_t k = 0; k < kernel; ++k) {
      const int64_t scaled = i + before - k * dilation;
      if (scaled >= 0 && scaled % stride == 0 && scaled / stride < output) taps.taps_.push_back({k, scaled / stride});
    }
    taps.EndTarget();
  }
  taps.FindRuns(stride, 1);
  return taps;
}

void Taps::FindRuns(int64_t period, int64_t source_step) {
  for (int64_t phase = 0; phase < std::min(period, size()); ++phase) {
    for (int64_t t = phase; t < size(); t += period) {
      if (t > phase && SameKernel(t - period, t)) {
        ++runs_.back().count;
      } else {
        runs_.push_back({t, 1, period, source_step});
      }
    }
  }
}

bool Taps::SameKernel(int64_t a, int64_t b) const {
  const absl::Span<const Tap> left = (*this)[a], right = (*this)[b];
  return std::equal(left.begin(), left.end(), right.begin(), right.end(), [](const Tap& x, const Tap& y) { return x.kernel == y.kernel; });
}

Correlation::Correlation(int64_t output, int64_t input, int64_t kernel, int64_t stride_, int64_t dilation_, int64_t before_,
                         int64_t channels_)
    : kernel_width(kernel), stride(stride_), dilation(dilation_), before(before_), channels(channels_), common_{0, output} {
  for (int64_t k = 0; k < kernel; ++k) {
    const int64_t shift = k * dilation - before;  // input = output · stride + shift
    const int64_t end = shift >= input ? 0 : std::min(output, (input - 1 - shift) / stride + 1);
    const int64_t first = shift < 0 ? (-shift + stride - 1) / stride : 0;
    outputs_.push_back({std::min(first, end), end});
    common_ = {std::max(common_.first, outputs_.back().first), std::min(common_.end, end)};
  }
  if (common_.first >= common_.end) common_ = {output, output};
}

namespace {

// `kCount` vectors of channels of `kPlaces` places of a run.
template <typename V, int kCount, int kPlaces, typename T>
LOCKSTEP_IN_CLONES void GatherPlaces(absl::Span<const TapAddress<T>> taps, int64_t channel, int64_t source_from, int64_t source_step,
                                     int64_t target_step, T* target) {
  constexpr int64_t kStep = sizeof(V) / sizeof(T);
  V sum[kPlaces][kCount] = {};
  for (const TapAddress<T>& tap : taps) {
    const T *const s = tap.source + source_from + channel, *const k = tap.kernel + channel;
    for (int i = 0; i < kCount; ++i) {
      V weight;
      Load(k + i * kStep, weight);
      for (int p = 0; p < kPlaces; ++p) {
        V value;
        Load(s + p * source_step + i * kStep, value);
        sum[p][i] += value * weight;
      }
    }
  }
  for (int p = 0; p < kPlaces; ++p) {
    for (int i = 0; i < kCount; ++i) Store(sum[p][i], target + p * target_step + channel + i * kStep);
  }
}

// Eight sums at once: as many as hide the latency of an addition.
template <typename V, int kCount, typename T>
LOCKSTEP_IN_CLONES void GatherRun(absl::Span<const TapAddress<T>> taps, int64_t channel, int64_t count, int64_t source_step,
                                  int64_t target_step, T* target) {
  constexpr int kPlaces = 8 / kCount;
  int64_t i = 0;
  for (; i + kPlaces <= count; i += kPlaces)
    GatherPlaces<V, kCount, kPlaces>(taps, channel, i * source_step, source_step, target_step, target + i * target_step);
  for (; i < count; ++i) GatherPlaces<V, kCount, 1>(taps, channel, i * source_step, source_step, target_step, target + i * target_step);
}

template <typename T>
LOCKSTEP_IN_CLONES void Gather(absl::Span<const SourceRow<T>> rows, const T* kernel, int64_t kernel_width, const Taps& columns,
                               int64_t channels, TapAddress<T>* scratch, T* target) {
  for (const Taps::Run& run : columns.runs()) {
    size_t count = 0;
    for (const SourceRow<T>& row : rows) {
      for (const Tap& column : columns[run.first])
        scratch[count++] = {row.pixels + column.source * channels, kernel + (row.kernel_row * kernel_width + column.kernel) * channels};
    }
    const absl::Span<const TapAddress<T>> taps(scratch, count);
    const int64_t source_step = run.source_step * channels, target_step = run.step * channels;
    T* const to = target + run.first * channels;
    int64_t c = 0;
    for (; c + 4 * kLanes<T> <= channels; c += 4 * kLanes<T>) GatherRun<Lanes<T>, 4>(taps, c, run.count, source_step, target_step, to);
    for (; c + kLanes<T> <= channels; c += kLanes<T>) GatherRun<Lanes<T>, 1>(taps, c, run.count, source_step, target_step, to);
    for (; c < channels; ++c) GatherRun<T, 1>(taps, c, run.count, source_step, target_step, to);
  }
}

// Products of `kColumns` columns of the kernel, neighbours `shift` apart in the image, over `count` outputs.
template <typename V, int kCount, int kColumns, typename T>
LOCKSTEP_IN_CLONES void CorrelateVectors(const T* x, const T* dy, int64_t count, int64_t x_step, int64_t shift, int64_t channels, T* sums) {
  constexpr int64_t kStep = sizeof(V) / sizeof(T);
  V sum[kColumns][kCount] = {};
  for (int64_t o = 0; o < count; ++o) {
    for (int i = 0; i < kCount; ++i) {
      V gradient;
      Load(dy + o * channels + i * kStep, gradient);
      for (int k = 0; k < kColumns; ++k) {
        V value;
        Load(x + o * x_step + k * shift + i * kStep, value);
        sum[k][i] += value * gradient;
      }
    }
  }
  for (int k = 0; k < kColumns; ++k) {
    for (int i = 0; i < kCount; ++i) {
      V before;
      Load(sums + k * channels + i * kStep, before);
      Store(before + sum[k][i], sums + k * channels + i * kStep);
    }
  }
}

// Columns [first, first + kColumns) of the kernel, for all channels.
template <int kColumns, typename T>
LOCKSTEP_IN_CLONES void CorrelateColumns(const T* x_row, const T* dy_row, const Correlation& s, int64_t first, Correlation::Outputs outputs,
                                         T* sums) {
  const int64_t count = outputs.end - outputs.first, x_step = s.stride * s.channels, shift = s.dilation * s.channels;
  if (count <= 0) return;
  const T* const x = x_row + (outputs.first * s.stride + first * s.dilation - s.before) * s.channels;
  const T* const dy = dy_row + outputs.first * s.channels;
  T* const to = sums + first * s.channels;
  int64_t c = 0;
  for (; c + 2 * kLanes<T> <= s.channels; c += 2 * kLanes<T>)
    CorrelateVectors<Lanes<T>, 2, kColumns>(x + c, dy + c, count, x_step, shift, s.channels, to + c);
  for (; c + kLanes<T> <= s.channels; c += kLanes<T>)
    CorrelateVectors<Lanes<T>, 1, kColumns>(x + c, dy + c, count, x_step, shift, s.channels, to + c);
  for (; c < s.channels; ++c) CorrelateVectors<T, 1, kColumns>(x + c, dy + c, count, x_step, shift, s.channels, to + c);
}

template <typename T>
LOCKSTEP_IN_CLONES void Correlate(const T* x_row, const T* dy_row, const Correlation& s, T* sums) {
  int64_t k = 0;
  for (; k + 3 <= s.kernel_width; k += 3) CorrelateColumns<3>(x_row, dy_row, s, k, s.common(), sums);
  for (; k < s.kernel_width; ++k) CorrelateColumns<1>(x_row, dy_row, s, k, s.common(), sums);
  for (k = 0; k < s.kernel_width; ++k) {
    const Correlation::Outputs& outputs = s.outputs(k);
    CorrelateColumns<1>(x_row, dy_row, s, k, {outputs.first, std::min(s.common().first, outputs.end)}, sums);
    CorrelateColumns<1>(x_row, dy_row, s, k, {s.common().end, outputs.end}, sums);
  }
}

}  // namespace

// Clones take no templates: a function for each type.
#define LOCKSTEP_DEPTHWISE_KERNELS(T)                                                                                                    \
  LOCKSTEP_VECTOR_CLONES void GatherRow(absl::Span<const SourceRow<T>> rows, const T* kernel, int64_t kernel_width, const Taps& columns, \
                                        int64_t channels, TapAddress<T>* scratch, T* target) {                                           \
    Gather<T>(rows, kernel, kernel_width, columns, channels, scratch, target);                                                           \
  }                                                                                                                                      \
  LOCKSTEP_VECTOR_CLONES void CorrelateRow(const T* image_row, const T* gradient_row, const Correlation& correlation, T* sums) {         \
    Correlate<T>(image_row, gradient_row, correlation, sums);                                                                            \
  }
LOCKSTEP_DEPTHWISE_KERNELS(float)
LOCKSTEP_DEPTHWISE_KERNELS(double)
#undef LOCKSTEP_DEPTHWISE_KERNELS

}  // namespace lockstep
