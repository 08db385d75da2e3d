#include "model/training/optimizer_config.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

using Kind = OptimizerKind;

struct Known {
  const char* name;
  Kind kind;
  double learning_rate;
};
constexpr Known kKnown[] = {
    {"SGD", Kind::kSgd, 0.01},          {"RMSprop", Kind::kRmsprop, 0.001},   {"Adam", Kind::kAdam, 0.001},
    {"AdamW", Kind::kAdamW, 0.001},     {"Nadam", Kind::kNadam, 0.001},       {"Adamax", Kind::kAdamax, 0.001},
    {"Adagrad", Kind::kAdagrad, 0.001}, {"Adadelta", Kind::kAdadelta, 0.001}, {"Lion", Kind::kLion, 0.001},
};

void CheckRange(ConfigFields& fields, const char* key, double value) {
  if (value < 0 || value > 1) fields.Problem(key, absl::StrCat(value, " is not between 0 and 1"));
}

void ReadClipping(ConfigFields& fields, OptimizerConfig& config) {
  config.clipnorm = fields.NumberOrNull("clipnorm");
  config.clipvalue = fields.NumberOrNull("clipvalue");
  config.global_clipnorm = fields.NumberOrNull("global_clipnorm");
  if (config.clipnorm.has_value() + config.clipvalue.has_value() + config.global_clipnorm.has_value() > 1) {
    fields.Problem("clipnorm", "only one of clipnorm, clipvalue and global_clipnorm can be set");
  }
}

void ReadEma(ConfigFields& fields, OptimizerConfig& config) {
  config.use_ema = fields.Flag("use_ema", false);
  config.ema_momentum = fields.Number("ema_momentum", 0.99);
  config.ema_overwrite_frequency = fields.Int("ema_overwrite_frequency", 0);
  if (!config.use_ema) return;
  CheckRange(fields, "ema_momentum", config.ema_momentum);
  if (config.ema_overwrite_frequency < 0) fields.Problem("ema_overwrite_frequency", "must be at least 1, or null");
}

// What every optimizer of Keras has.
void ReadCommon(ConfigFields& fields, const std::string& where, double learning_rate, OptimizerConfig& config, Problems& problems) {
  fields.Skip("name");
  const Json rate = fields.Raw("learning_rate");
  config.learning_rate =
      rate.is_null() ? LearningRate::Constant(learning_rate) : ReadLearningRate(rate, absl::StrCat(where, ".learning_rate"), problems);
  config.weight_decay = fields.NumberOrNull("weight_decay");
  ReadClipping(fields, config);
  ReadEma(fields, config);
  config.loss_scale_factor = fields.NumberOrNull("loss_scale_factor");
  if (config.loss_scale_factor && *config.loss_scale_factor <= 0) fields.Problem("loss_scale_factor", "must be more than 0");
  config.gradient_accumulation_steps = fields.Int("gradient_accumulation_steps", 0);
  if (config.gradient_accumulation_steps < 0 || config.gradient_accumulation_steps == 1) {
    fields.Problem("gradient_accumulation_steps", "must be at least 2, or null");
  }
}

void ReadBetas(ConfigFields& fields, double beta_2, OptimizerConfig& config) {
  config.beta_1 = fields.Number("beta_1", 0.9);
  config.beta_2 = fields.Number("beta_2", beta_2);
}

void ReadOwn(ConfigFields& fields, OptimizerConfig& config) {
  switch (config.kind) {
    case Kind::kSgd:
      config.momentum = fields.Number("momentum", 0);
      config.nesterov = fields.Flag("nesterov", false);
      CheckRange(fields, "momentum", config.momentum);
      return;
    case Kind::kRmsprop:
      config.rho = fields.Number("rho", 0.9);
      config.momentum = fields.Number("momentum", 0);
      config.centered = fields.Flag("centered", false);
      break;
    case Kind::kAdamW:
      if (!config.weight_decay) config.weight_decay = 0.004;
      [[fallthrough]];
    case Kind::kAdam:
      ReadBetas(fields, 0.999, config);
      config.amsgrad = fields.Flag("amsgrad", false);
      break;
    case Kind::kNadam:
    case Kind::kAdamax: ReadBetas(fields, 0.999, config); break;
    case Kind::kAdagrad: config.initial_accumulator_value = fields.Number("initial_accumulator_value", 0.1); break;
    case Kind::kAdadelta: config.rho = fields.Number("rho", 0.95); break;
    case Kind::kLion:
      ReadBetas(fields, 0.99, config);
      if (config.beta_1 <= 0 || config.beta_1 > 1) fields.Problem("beta_1", "must be more than 0, and at most 1");
      return;
  }
  config.epsilon = fields.Number("epsilon", 1e-7);
}

}  // namespace

std::vector<std::vector<std::string>> SlotGroups(const OptimizerConfig& config) {
  std::vector<std::vector<std::string>> groups;
  if (config.use_ema) groups.push_back({"average"});
  if (config.gradient_accumulation_steps > 1) groups.push_back({"gradient_accumulator"});
  switch (config.kind) {
    case Kind::kSgd:
      if (config.momentum != 0) groups.push_back({"momentum"});
      break;
    case Kind::kRmsprop:
      groups.push_back({"velocity"});
      if (config.momentum > 0) groups.push_back({"momentum"});
      if (config.centered) groups.push_back({"average_gradient"});
      break;
    case Kind::kAdam:
    case Kind::kAdamW:
      groups.push_back({"momentum", "velocity"});
      if (config.amsgrad) groups.push_back({"velocity_hat"});
      break;
    case Kind::kNadam: groups.push_back({"momentum", "velocity"}); break;
    case Kind::kAdamax: groups.push_back({"momentum", "norm"}); break;
    case Kind::kAdagrad: groups.push_back({"accumulator"}); break;
    case Kind::kAdadelta: groups.push_back({"accumulated_grad", "accumulated_delta_var"}); break;
    case Kind::kLion: groups.push_back({"momentum"}); break;
  }
  return groups;
}

OptimizerConfig ReadOptimizer(const Json& value, const std::string& where, Problems& problems) {
  OptimizerConfig config;
  const auto object = ReadKerasObject(value, where, problems);
  if (!object) return config;
  const auto* found = std::find_if(std::begin(kKnown), std::end(kKnown), [&](const Known& known) {
    return absl::AsciiStrToLower(known.name) == absl::AsciiStrToLower(object->name);
  });
  if (found == std::end(kKnown)) {
    std::vector<std::string> names;
    for (const Known& known : kKnown) names.push_back(absl::AsciiStrToLower(known.name));
    problems.push_back(absl::StrCat(where, ": optimizer ", NotKnown(object->name, names)));
    return config;
  }
  config.kind = found->kind;
  ConfigFields fields(object->config, where, problems);
  ReadCommon(fields, where, found->learning_rate, config, problems);
  ReadOwn(fields, config);
  fields.RefuseUnread();
  return config;
}

}  // namespace lockstep
