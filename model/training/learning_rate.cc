#include "model/training/learning_rate.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

using Kind = LearningRate::Kind;

const std::vector<std::string>& KnownSchedules() {
  static const auto& known = *new std::vector<std::string>{
      "ExponentialDecay", "PiecewiseConstantDecay", "PolynomialDecay", "InverseTimeDecay", "CosineDecay", "CosineDecayRestarts"};
  return known;
}

float Polynomial(const LearningRate& rate, float step) {
  float steps = static_cast<float>(rate.decay_steps);
  if (rate.cycle) {
    const float multiplier = step == 0 ? 1.0f : std::ceil(step / static_cast<float>(rate.decay_steps));
    steps *= multiplier;
  } else {
    step = std::min(step, steps);
  }
  const float p = step / steps, initial = static_cast<float>(rate.initial), end = static_cast<float>(rate.end);
  return (initial - end) * std::pow(1 - p, static_cast<float>(rate.power)) + end;
}

float CosineFrom(const LearningRate& rate, float step, float from) {
  const float cosine = 0.5f * (1.0f + std::cos(std::numbers::pi_v<float> * (step / static_cast<float>(rate.decay_steps))));
  return from * (static_cast<float>(1 - rate.alpha) * cosine + static_cast<float>(rate.alpha));
}

float Cosine(const LearningRate& rate, float step) {
  const float initial = static_cast<float>(rate.initial), steps = static_cast<float>(rate.decay_steps);
  if (!rate.warmup_target) return CosineFrom(rate, std::min(step, steps), initial);
  const float warmup = static_cast<float>(rate.warmup_steps), target = static_cast<float>(*rate.warmup_target);
  step = std::min(step, steps + warmup);
  if (step < warmup) return (target - initial) * (step / warmup) + initial;
  return CosineFrom(rate, step - warmup, target);
}

// Loshchilov and Hutter, "SGDR" (2016): each period is t_mul times as long as the one before it, and begins m_mul times as high.
float CosineRestarts(const LearningRate& rate, float step) {
  const float t_mul = static_cast<float>(rate.t_mul), alpha = static_cast<float>(rate.alpha);
  float fraction = step / static_cast<float>(rate.decay_steps);
  float restarts;
  if (t_mul == 1) {
    restarts = std::floor(fraction);
    fraction -= restarts;
  } else {
    restarts = std::floor(std::log(1.0f - fraction * (1.0f - t_mul)) / std::log(t_mul));
    const float before = (1.0f - std::pow(t_mul, restarts)) / (1.0f - t_mul);
    fraction = (fraction - before) / std::pow(t_mul, restarts);
  }
  const float height = 0.5f * std::pow(static_cast<float>(rate.m_mul), restarts);
  const float cosine = height * (1.0f + std::cos(std::numbers::pi_v<float> * fraction));
  return static_cast<float>(rate.initial) * ((1 - alpha) * cosine + alpha);
}

float Piecewise(const LearningRate& rate, int64_t steps) {
  size_t piece = 0;
  // Keras casts boundaries to the step's type, whole numbers.
  while (piece < rate.boundaries.size() && steps > static_cast<int64_t>(rate.boundaries[piece])) ++piece;
  return static_cast<float>(rate.values[piece]);
}

void ReadDecay(ConfigFields& fields, LearningRate& rate) {
  rate.decay_rate = fields.Number("decay_rate", 0);
  rate.staircase = fields.Flag("staircase", false);
}

void ReadPiecewise(ConfigFields& fields, LearningRate& rate) {
  rate.boundaries = fields.Numbers("boundaries");
  rate.values = fields.Numbers("values");
  if (rate.boundaries.empty() || rate.values.size() != rate.boundaries.size() + 1) {
    fields.Problem("values", absl::StrCat(rate.values.size(), " values for ", rate.boundaries.size(),
                                          " boundaries; there must be one more, and at least one boundary"));
  } else if (!std::is_sorted(rate.boundaries.begin(), rate.boundaries.end())) {
    fields.Problem("boundaries", "must not decrease");
  }
}

void ReadCosine(ConfigFields& fields, LearningRate& rate) {
  rate.alpha = fields.Number("alpha", 0);
  rate.warmup_target = fields.NumberOrNull("warmup_target");
  rate.warmup_steps = static_cast<double>(fields.Int("warmup_steps", 0));
}

void ReadRestarts(ConfigFields& fields, LearningRate& rate) {
  rate.t_mul = fields.Number("t_mul", 2);
  rate.m_mul = fields.Number("m_mul", 1);
  rate.alpha = fields.Number("alpha", 0);
  if (rate.t_mul < 1) fields.Problem("t_mul", "must be at least 1: periods that shrink would end");
}

void ReadPolynomial(ConfigFields& fields, LearningRate& rate) {
  rate.end = fields.Number("end_learning_rate", 0.0001);
  rate.power = fields.Number("power", 1);
  rate.cycle = fields.Flag("cycle", false);
}

}  // namespace

LearningRate LearningRate::Constant(double value) {
  LearningRate rate;
  rate.initial = value;
  return rate;
}

float LearningRate::At(int64_t steps) const {
  const float step = static_cast<float>(steps), start = static_cast<float>(initial), rate = static_cast<float>(decay_rate);
  float periods = step / static_cast<float>(decay_steps);
  if (staircase) periods = std::floor(periods);
  switch (kind) {
    case Kind::kConstant: return start;
    case Kind::kExponentialDecay: return start * std::pow(rate, periods);
    case Kind::kInverseTimeDecay: return start / (1.0f + rate * periods);
    case Kind::kPolynomialDecay: return Polynomial(*this, step);
    case Kind::kCosineDecay: return Cosine(*this, step);
    case Kind::kCosineDecayRestarts: return CosineRestarts(*this, step);
    case Kind::kPiecewiseConstantDecay: return Piecewise(*this, steps);
  }
  return start;
}

LearningRate ReadLearningRate(const Json& value, const std::string& where, Problems& problems) {
  LearningRate rate;
  if (value.is_number()) {
    rate.initial = value.get<double>();
    if (!std::isfinite(rate.initial) || rate.initial < 0) problems.push_back(absl::StrCat(where, ": must be a finite number, at least 0"));
    return rate;
  }
  const auto object = ReadKerasObject(value, where, problems);
  if (!object) return rate;
  const auto& known = KnownSchedules();
  const auto found = std::find(known.begin(), known.end(), object->name);
  if (found == known.end()) {
    problems.push_back(absl::StrCat(where, ": schedule ", NotKnown(object->name, known)));
    return rate;
  }
  rate.kind = static_cast<Kind>(found - known.begin() + 1);
  ConfigFields fields(object->config, where, problems);
  fields.Skip("name");
  const bool restarts = rate.kind == Kind::kCosineDecayRestarts;
  if (rate.kind == Kind::kPiecewiseConstantDecay) {
    ReadPiecewise(fields, rate);
  } else {
    const char* steps = restarts ? "first_decay_steps" : "decay_steps";
    rate.initial = fields.Number("initial_learning_rate", 0);
    rate.decay_steps = fields.Number(steps, 0);
    if (rate.decay_steps <= 0) fields.Problem(steps, "must be more than 0");
  }
  switch (rate.kind) {
    case Kind::kExponentialDecay:
    case Kind::kInverseTimeDecay: ReadDecay(fields, rate); break;
    case Kind::kPolynomialDecay: ReadPolynomial(fields, rate); break;
    case Kind::kCosineDecay: ReadCosine(fields, rate); break;
    case Kind::kCosineDecayRestarts: ReadRestarts(fields, rate); break;
    case Kind::kPiecewiseConstantDecay:
    case Kind::kConstant: break;
  }
  fields.RefuseUnread();
  return rate;
}

}  // namespace lockstep
