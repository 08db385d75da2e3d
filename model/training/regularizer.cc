#include "model/training/regularizer.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/training/config_fields.h"
#include "model/training/update_rules.h"

namespace lockstep {
namespace {

template <typename T>
double SumOfAbsolutes(const T* values, int64_t count) {
  constexpr int64_t kLanes = 8;
  double lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i % kLanes] += std::abs(static_cast<double>(values[i]));
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace

absl::StatusOr<Penalty> ReadRegularizer(const Json& regularizer, const std::string& variable, int64_t offset, int64_t count) {
  Penalty penalty;
  penalty.offset = offset;
  penalty.count = count;
  if (regularizer.is_null()) return penalty;
  Problems problems;
  const std::string where = absl::StrCat("regularizer of ", variable);
  if (const auto object = ReadKerasObject(regularizer, where, problems)) {
    ConfigFields fields(object->config, where, problems);
    const std::string& name = object->name;
    if (name == "L1" || name == "l1") {
      penalty.l1 = fields.Number("l1", 0.01);
    } else if (name == "L2" || name == "l2") {
      penalty.l2 = fields.Number("l2", 0.01);
    } else if (name == "L1L2" || name == "l1_l2" || name == "l1l2") {
      penalty.l1 = fields.Number("l1", 0);
      penalty.l2 = fields.Number("l2", 0);
    } else {
      problems.push_back(absl::StrCat(where, ": ", NotKnown(name, {"L1", "L2", "L1L2"})));
      return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
    }
    fields.RefuseUnread();
  }
  if (penalty.l1 < 0 || penalty.l2 < 0) problems.push_back(absl::StrCat(where, ": a factor is less than 0"));
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
  return penalty;
}

template <typename T>
double SumPenalties(const std::vector<Penalty>& penalties, absl::Span<const T> parameters) {
  double sum = 0;
  for (const Penalty& penalty : penalties) {
    const T* const w = parameters.data() + penalty.offset;
    if (penalty.l1 != 0) sum += penalty.l1 * SumOfAbsolutes(w, penalty.count);
    if (penalty.l2 != 0) sum += penalty.l2 * SumOfSquares(w, penalty.count);
  }
  return sum;
}

template <typename T>
double AddPenalties(const std::vector<Penalty>& penalties, absl::Span<const T> parameters, double loss_scale, absl::Span<T> gradients) {
  for (const Penalty& penalty : penalties) {
    const T l1 = static_cast<T>(penalty.l1 * loss_scale), l2 = static_cast<T>(2 * penalty.l2 * loss_scale);
    const T* const w = parameters.data() + penalty.offset;
    T* const g = gradients.data() + penalty.offset;
    for (int64_t i = 0; i < penalty.count; ++i) {
      g[i] += l1 * static_cast<T>((w[i] > 0) - (w[i] < 0)) + l2 * w[i];
    }
  }
  return SumPenalties(penalties, parameters);
}

template double SumPenalties(const std::vector<Penalty>&, absl::Span<const float>);
template double SumPenalties(const std::vector<Penalty>&, absl::Span<const double>);
template double AddPenalties(const std::vector<Penalty>&, absl::Span<const float>, double, absl::Span<float>);
template double AddPenalties(const std::vector<Penalty>&, absl::Span<const double>, double, absl::Span<double>);

}  // namespace lockstep
