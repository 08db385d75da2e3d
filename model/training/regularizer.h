#pragma once
// Keras's weight regularizers: l1 · Σ|w| + l2 · Σw², added to the loss. No libtorch.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/keras_archive.h"

namespace lockstep {

// On `count` parameters from `offset` on.
struct Penalty {
  double l1 = 0;
  double l2 = 0;
  int64_t offset = 0;
  int64_t count = 0;
};

// `regularizer` as a layer's configuration has it; null is no penalty. InvalidArgument, naming `variable`: one that we do not know,
// OrthogonalRegularizer among them.
absl::StatusOr<Penalty> ReadRegularizer(const Json& regularizer, const std::string& variable, int64_t offset, int64_t count);

// The sum of all penalties. Sums are taken in float64.
template <typename T>
double SumPenalties(const std::vector<Penalty>& penalties, absl::Span<const T> parameters);

// The same, and adds `loss_scale` times their derivatives to the gradients (Keras's, where |w| has the derivative 0 at 0).
template <typename T>
double AddPenalties(const std::vector<Penalty>& penalties, absl::Span<const T> parameters, double loss_scale, absl::Span<T> gradients);

extern template double SumPenalties(const std::vector<Penalty>&, absl::Span<const float>);
extern template double SumPenalties(const std::vector<Penalty>&, absl::Span<const double>);
extern template double AddPenalties(const std::vector<Penalty>&, absl::Span<const float>, double, absl::Span<float>);
extern template double AddPenalties(const std::vector<Penalty>&, absl::Span<const double>, double, absl::Span<double>);

}  // namespace lockstep
