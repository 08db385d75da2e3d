#include "model/layer.h"

#include <c10/util/Exception.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace lockstep {

std::string ShapeText(const Shape& shape) {
  return absl::StrCat(
      "(", absl::StrJoin(shape, ", ", [](std::string* out, int64_t n) { absl::StrAppend(out, n < 0 ? "None" : absl::StrCat(n)); }), ")");
}

Shape RunShape(KernelLayout layout, const Shape& s) {
  switch (layout) {
    case KernelLayout::kConvolution: return {s[3], s[0], s[1], s[2]};
    case KernelLayout::kDepthwise: return {s[2] * s[3], s[0], s[1], 1};
    case KernelLayout::kAsIs: break;
  }
  return s;
}

absl::StatusOr<std::vector<VariableSpec>> Layer::Build(absl::Span<const Shape>) { return std::vector<VariableSpec>(); }

absl::StatusOr<Shape> Layer::OutputShape(absl::Span<const Shape> inputs) const {
  RETURN_IF_ERROR(ExpectInputs(inputs, 1, 0));
  return inputs[0];
}

BatchNormResult Layer::ForwardNormalised(const at::Tensor&, const NormalisationBefore&, const Frame&) const {
  TORCH_INTERNAL_ASSERT(false, "this layer takes no normalisation into its pass");
}

absl::Status ExpectInputs(absl::Span<const Shape> inputs, size_t count, int rank) {
  if (inputs.size() != count) return absl::InvalidArgumentError(absl::StrCat("takes ", count, " input(s), but is given ", inputs.size()));
  for (const Shape& shape : inputs) {
    if (rank != 0 && static_cast<int>(shape.size()) != rank) {
      return absl::InvalidArgumentError(absl::StrCat("takes an input of ", rank, " axes, but is given ", ShapeText(shape)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Shape> BroadcastShapes(const Shape& a, const Shape& b) {
  const Shape& longer = a.size() >= b.size() ? a : b;
  const Shape& shorter = a.size() >= b.size() ? b : a;
  Shape result = longer;
  for (size_t i = 0; i < shorter.size(); ++i) {
    int64_t& extent = result[result.size() - shorter.size() + i];
    const int64_t other = shorter[i];
    if (extent == other || other == 1) continue;
    if (extent == 1 || (extent < 0 && other > 1)) {
      extent = other;
    } else if (other >= 0) {
      return absl::InvalidArgumentError(absl::StrCat("cannot join inputs of shapes ", ShapeText(a), " and ", ShapeText(b)));
    }
  }
  return result;
}

absl::StatusOr<int> FrontAxis(int64_t axis, size_t rank) {
  const auto n = static_cast<int64_t>(rank);
  if (axis < -n || axis >= n) return absl::InvalidArgumentError(absl::StrCat("axis ", axis, " does not exist among ", n, " axes"));
  return static_cast<int>(axis < 0 ? axis + n : axis);
}

}  // namespace lockstep
