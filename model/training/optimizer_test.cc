#include "model/training/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>
#include <random>

#include "model/training/keras_slots.h"

namespace {
std::atomic<int64_t> allocations{0};
}

void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace lockstep {
namespace {

using testing::ElementsAre;

OptimizerConfig Config(OptimizerKind kind) {
  OptimizerConfig config;
  config.kind = kind;
  config.learning_rate = LearningRate::Constant(0.1);
  return config;
}

constexpr OptimizerKind kAll[] = {OptimizerKind::kSgd,     OptimizerKind::kRmsprop,  OptimizerKind::kAdam,
                                  OptimizerKind::kAdamW,   OptimizerKind::kNadam,    OptimizerKind::kAdamax,
                                  OptimizerKind::kAdagrad, OptimizerKind::kAdadelta, OptimizerKind::kLion};

// Parameters and state of one optimizer, with its variables at chosen places of one array.
class Training {
 public:
  Training(const OptimizerConfig& config, std::vector<OptimizerVariable> variables, int64_t elements)
      : optimizer_(*Optimizer<float>::Create(config, std::move(variables), elements)), parameters_(static_cast<size_t>(elements), kGap) {
    slots_.assign(optimizer_->slot_names().size(), std::vector<float>(parameters_.size()));
    state_.scalars = &scalars_;
    for (auto& slot : slots_) state_.slots.push_back(slot.data());
    optimizer_->Initialize(state_);
  }

  static constexpr float kGap = 77;

  void Step(std::vector<float> gradients) { optimizer_->Apply(absl::MakeSpan(parameters_), absl::MakeSpan(gradients), state_); }
  // Variable `index`'s parameters.
  std::vector<float> Values(size_t index) const {
    const OptimizerVariable& variable = optimizer_->variables()[index];
    return {parameters_.begin() + variable.offset, parameters_.begin() + variable.offset + variable.count};
  }

  std::unique_ptr<Optimizer<float>> optimizer_;
  std::vector<float> parameters_;
  std::vector<std::vector<float>> slots_;
  OptimizerScalars scalars_;
  OptimizerState<float> state_;
};

std::vector<float> RandomValues(std::mt19937& random, size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

OptimizerConfig WithEverything(OptimizerKind kind) {
  OptimizerConfig config = Config(kind);
  config.momentum = 0.9;
  config.nesterov = config.centered = config.amsgrad = config.use_ema = true;
  config.epsilon = 1e-2;
  config.weight_decay = 0.01;
  config.clipnorm = 0.5;
  config.loss_scale_factor = 4;
  config.gradient_accumulation_steps = 2;
  config.ema_overwrite_frequency = 3;
  return config;
}

TEST(Optimizer, ApplyAllocatesNothing) {
  for (const OptimizerKind kind : kAll) {
    Training run(WithEverything(kind), {{"a", 0, 100}, {"b", 128, 7}}, 160);
    std::vector<float> gradients(160, 0.5f);
    const int64_t before = allocations;
    for (int step = 0; step < 5; ++step) run.optimizer_->Apply(absl::MakeSpan(run.parameters_), absl::MakeSpan(gradients), run.state_);
    EXPECT_EQ(allocations, before) << static_cast<int>(kind);
  }
}

TEST(Optimizer, ResultsDoNotDependOnWhereVariablesLieAndGapsAreNotTouched) {
  const unsigned seed = 5;
  std::mt19937 random(seed);
  for (const OptimizerKind kind : kAll) {
    Training one(WithEverything(kind), {{"a", 0, 33}, {"b", 64, 5}}, 80), other(WithEverything(kind), {{"a", 17, 33}, {"b", 3, 5}}, 51);
    const auto a = RandomValues(random, 33), b = RandomValues(random, 5);
    std::copy(a.begin(), a.end(), one.parameters_.begin()), std::copy(b.begin(), b.end(), one.parameters_.begin() + 64);
    std::copy(a.begin(), a.end(), other.parameters_.begin() + 17), std::copy(b.begin(), b.end(), other.parameters_.begin() + 3);
    for (int step = 0; step < 6; ++step) {
      const auto ga = RandomValues(random, 33), gb = RandomValues(random, 5);
      std::vector<float> first(80, 1e9f), second(51, -1e9f);
      std::copy(ga.begin(), ga.end(), first.begin()), std::copy(gb.begin(), gb.end(), first.begin() + 64);
      std::copy(ga.begin(), ga.end(), second.begin() + 17), std::copy(gb.begin(), gb.end(), second.begin() + 3);
      one.Step(first), other.Step(second);
    }
    EXPECT_EQ(one.Values(0), other.Values(0)) << "seed " << seed << " kind " << static_cast<int>(kind);
    EXPECT_EQ(one.Values(1), other.Values(1));
    EXPECT_NE(one.Values(0), a);
    for (int i = 33; i < 64; ++i) ASSERT_EQ(one.parameters_[static_cast<size_t>(i)], Training::kGap);
    for (int i : {0, 1, 2, 8, 16, 50}) ASSERT_EQ(other.parameters_[static_cast<size_t>(i)], Training::kGap);
  }
}

TEST(Optimizer, LossScaleOfAPowerOfTwoChangesNoBit) {
  for (const OptimizerKind kind : kAll) {
    OptimizerConfig scaled = Config(kind);
    scaled.loss_scale_factor = 1024;
    Training plain(Config(kind), {{"a", 0, 3}}, 3), with_scale(scaled, {{"a", 0, 3}}, 3);
    EXPECT_EQ(with_scale.optimizer_->loss_scale(), 1024);
    for (const float g : {0.3f, -0.7f, 0.011f}) {
      plain.Step({g, 2 * g, -g});
      with_scale.Step({1024 * g, 2048 * g, -1024 * g});
    }
    EXPECT_EQ(plain.parameters_, with_scale.parameters_);
  }
}

TEST(Optimizer, AccumulatedStepsAreOneStepOfTheMean) {
  OptimizerConfig accumulating = Config(OptimizerKind::kAdam);
  accumulating.gradient_accumulation_steps = 4;
  Training plain(Config(OptimizerKind::kAdam), {{"a", 0, 2}}, 2), sum(accumulating, {{"a", 0, 2}}, 2);
  const std::vector<float> start = sum.parameters_;
  for (const float g : {1.0f, 3.0f, -2.0f}) {
    sum.Step({g, 2 * g});
    EXPECT_EQ(sum.parameters_, start) << "a step that only accumulates";
  }
  sum.Step({6.0f, 12.0f});
  plain.Step({2.0f, 4.0f});
  EXPECT_EQ(sum.parameters_, plain.parameters_);
  EXPECT_EQ(sum.scalars_.iterations, 4);
}

TEST(Optimizer, ClippedGradientsKeepTheirDirection) {
  OptimizerConfig config = Config(OptimizerKind::kSgd);
  config.clipnorm = 1;
  Training by_norm(config, {{"a", 0, 2}, {"b", 2, 1}}, 3);
  by_norm.parameters_ = {0, 0, 0};
  by_norm.Step({30, 40, 0.5});  // norms 50 and 0.5
  EXPECT_THAT(by_norm.parameters_, ElementsAre(testing::FloatEq(-0.06f), testing::FloatEq(-0.08f), testing::FloatEq(-0.05f)));
  config.clipnorm.reset();
  config.global_clipnorm = 5;
  Training by_global(config, {{"a", 0, 2}, {"b", 2, 1}}, 3);
  by_global.parameters_ = {0, 0, 0};
  by_global.Step({6, 8, 0});
  EXPECT_THAT(by_global.parameters_, ElementsAre(testing::FloatEq(-0.3f), testing::FloatEq(-0.4f), 0));
  config.global_clipnorm.reset();
  config.clipvalue = 0.5;
  Training by_value(config, {{"a", 0, 3}}, 3);
  by_value.parameters_ = {0, 0, 0};
  by_value.Step({-2, 0.25, 9});
  EXPECT_THAT(by_value.parameters_, ElementsAre(testing::FloatEq(0.05f), testing::FloatEq(-0.025f), testing::FloatEq(-0.05f)));
}

TEST(Optimizer, ZeroGradientsUnderClipnormStayZero) {
  OptimizerConfig config = Config(OptimizerKind::kSgd);
  config.clipnorm = 1;
  Training run(config, {{"a", 0, 2}}, 2);
  run.Step({0, 0});
  EXPECT_EQ(run.parameters_, std::vector<float>(2, Training::kGap));
}

TEST(Optimizer, TrainingEndsWithTheAverages) {
  OptimizerConfig config = Config(OptimizerKind::kSgd);
  config.use_ema = true;
  config.ema_momentum = 0.5;
  Training run(config, {{"a", 0, 1}}, 1);
  run.parameters_ = {1};
  run.Step({0});   // the first average is the value itself
  run.Step({10});  // 0; the average 0.5
  EXPECT_NEAR(run.parameters_[0], 0, 1e-7);
  run.optimizer_->FinishTraining(absl::MakeSpan(run.parameters_), run.state_);
  EXPECT_NEAR(run.parameters_[0], 0.5, 1e-7);
}

TEST(Optimizer, LearningRateCanBeSetUnlessItFollowsASchedule) {
  Training run(Config(OptimizerKind::kSgd), {{"a", 0, 1}}, 1);
  ASSERT_TRUE(SetLearningRate(*run.optimizer_, 0.25, run.scalars_).ok());
  EXPECT_EQ(run.optimizer_->LearningRate(run.scalars_), 0.25f);
  EXPECT_EQ(SetLearningRate(*run.optimizer_, NAN, run.scalars_).code(), absl::StatusCode::kInvalidArgument);
  OptimizerConfig config = Config(OptimizerKind::kSgd);
  config.learning_rate.kind = LearningRate::Kind::kExponentialDecay;
  config.learning_rate.decay_rate = 0.5;
  Training scheduled(config, {{"a", 0, 1}}, 1);
  EXPECT_EQ(SetLearningRate(*scheduled.optimizer_, 0.25, scheduled.scalars_).code(), absl::StatusCode::kFailedPrecondition);
  scheduled.Step({0});
  EXPECT_FLOAT_EQ(scheduled.optimizer_->LearningRate(scheduled.scalars_), 0.05f);
}

TEST(Optimizer, VariablesOutsideOfTheArraysAreRefused) {
  EXPECT_FALSE(Optimizer<float>::Create(Config(OptimizerKind::kSgd), {{"a", 8, 9}}, 16).ok());
  EXPECT_FALSE(Optimizer<float>::Create(Config(OptimizerKind::kSgd), {{"a", -1, 1}}, 16).ok());
}

TEST(KerasSlots, AreInTheOrderOfKerassVariables) {
  OptimizerConfig config = Config(OptimizerKind::kNadam);
  config.use_ema = true;
  config.gradient_accumulation_steps = 2;
  const Training run(config, {{"a", 0, 1}, {"b", 1, 1}}, 2);
  std::vector<std::string> names;
  for (const auto& entry : KerasSlots(config, run.optimizer_->slot_names(), run.optimizer_->variables())) {
    using Kind = KerasOptimizerVariable::Kind;
    switch (entry.kind) {
      case Kind::kIterations: names.emplace_back("iterations"); break;
      case Kind::kLearningRate: names.emplace_back("learning_rate"); break;
      case Kind::kUProduct: names.emplace_back("u_product"); break;
      case Kind::kSlot:
        names.push_back(run.optimizer_->variables()[static_cast<size_t>(entry.variable)].path + " " +
                        run.optimizer_->slot_names()[static_cast<size_t>(entry.slot)]);
        break;
    }
  }
  EXPECT_THAT(names, ElementsAre("iterations", "learning_rate", "a average", "b average", "a gradient_accumulator",
                                 "b gradient_accumulator", "a momentum", "a velocity", "b momentum", "b velocity", "u_product"));
}

TEST(OptimizerScalars, HaveNoPadding) { EXPECT_EQ(sizeof(OptimizerScalars), 24); }

}  // namespace
}  // namespace lockstep
