#pragma once
// The loops of depthwise convolution, a row of an image at a time. An image's row is (width, C), a kernel (h, w, C).
//
// A convolution and the gradient of its input are one loop: each place of the target gathers, over its taps, a place of the source
// times a weight; only the tables of taps differ.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace lockstep {

// Which place of the source, along one axis, and by which element of the kernel.
struct Tap {
  int64_t kernel, source;
};

// Along one axis: what each place of the target gathers. Immutable.
class Taps {
 public:
  // From the output of a convolution to its image …
  static Taps Forward(int64_t output, int64_t input, int64_t kernel, int64_t stride, int64_t dilation, int64_t before);
  // … and from the image to the output, for the gradient.
  static Taps Backward(int64_t output, int64_t input, int64_t kernel, int64_t stride, int64_t dilation, int64_t before);

  // Places whose taps move on evenly: place i is `first` + i · `step`, its sources are those of the first plus i · `source_step`.
  struct Run {
    int64_t first, count, step, source_step;
  };

  int64_t size() const { return static_cast<int64_t>(begin_.size()) - 1; }
  absl::Span<const Tap> operator[](int64_t target) const {
    const size_t first = begin_[static_cast<size_t>(target)];
    return absl::MakeConstSpan(taps_).subspan(first, begin_[static_cast<size_t>(target) + 1] - first);
  }
  absl::Span<const Run> runs() const { return runs_; }

 private:
  Taps() : begin_{0} {}
  void EndTarget() { begin_.push_back(taps_.size()); }
  // Targets that are `period` apart gather from sources `source_step` apart.
  void FindRuns(int64_t period, int64_t source_step);
  bool SameKernel(int64_t a, int64_t b) const;

  std::vector<Tap> taps_;
  std::vector<size_t> begin_;  // by target; one more at the end
  std::vector<Run> runs_;
};

// One row of the source, and the row of the kernel that it meets.
template <typename T>
struct SourceRow {
  const T* pixels;
  int64_t kernel_row;
};
// Where one tap of a run begins.
template <typename T>
struct TapAddress {
  const T *source, *kernel;
};

// A row of the target: target[x, c] = sum over taps of source[…, c] · kernel[…, c]. `scratch`: room for as many as the kernel has elements.
void GatherRow(absl::Span<const SourceRow<float>> rows, const float* kernel, int64_t kernel_width, const Taps& columns, int64_t channels,
               TapAddress<float>* scratch, float* target);
void GatherRow(absl::Span<const SourceRow<double>> rows, const double* kernel, int64_t kernel_width, const Taps& columns, int64_t channels,
               TapAddress<double>* scratch, double* target);

// What the gradient of a row of the kernel, from a row of the image and a row of the output's gradient, depends on.
class Correlation {
 public:
  struct Outputs {
    int64_t first, end;
  };

  Correlation(int64_t output, int64_t input, int64_t kernel, int64_t stride, int64_t dilation, int64_t before, int64_t channels);

  const int64_t kernel_width, stride, dilation, before, channels;
  // That see the image through this column of the kernel.
  const Outputs& outputs(int64_t column) const { return outputs_[static_cast<size_t>(column)]; }
  // That see it through all columns. If none does, both ends are beyond all outputs.
  const Outputs& common() const { return common_; }

 private:
  std::vector<Outputs> outputs_;
  Outputs common_;
};

// Added to `sums`, (w, C).
void CorrelateRow(const float* image_row, const float* gradient_row, const Correlation& correlation, float* sums);
void CorrelateRow(const double* image_row, const double* gradient_row, const Correlation& correlation, double* sums);

}  // namespace lockstep
