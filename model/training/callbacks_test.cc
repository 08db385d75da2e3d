// Monitor, EarlyStopping, ReduceOnPlateau and Best: truth tables. Random sequences against Keras are tests/parity/callback_test.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "model/training/best.h"
#include "model/training/early_stopping.h"
#include "model/training/reduce_on_plateau.h"

namespace lockstep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<MonitoredMetric> kMetrics = {{"loss", Direction::kDown}, {"accuracy", Direction::kUp}};

Monitor Watch(const std::string& metric, double min_delta = 0) { return *MakeMonitor("stop_early", metric, "", min_delta, kMetrics, true); }

std::string Refusal(const std::string& metric, const std::string& mode, bool has_validation) {
  return std::string(MakeMonitor("stop_early", metric, mode, 0, kMetrics, has_validation).status().message());
}

TEST(Monitor, ModeIsTheMetricsOwnUnlessNamed) {
  EXPECT_EQ(Watch("val_loss").direction, Direction::kDown);
  EXPECT_EQ(Watch("val_accuracy").direction, Direction::kUp);
  EXPECT_EQ(MakeMonitor("x", "accuracy", "min", 0, kMetrics, false)->direction, Direction::kDown);
  EXPECT_EQ(MakeMonitor("x", "loss", "max", 0, kMetrics, false)->direction, Direction::kUp);
  EXPECT_EQ(MakeMonitor("x", "loss", "auto", -0.5, kMetrics, false)->min_delta, 0.5);
}

TEST(Monitor, RefusalsNameTheFieldAndTheKnown) {
  EXPECT_THAT(Refusal("val_acuracy", "", true),
              HasSubstr("stop_early: metric \"val_acuracy\" is not known; did you mean \"val_accuracy\"?"));
  EXPECT_THAT(Refusal("val_loss", "", false), HasSubstr("needs validation data"));
  EXPECT_THAT(Refusal("loss", "least", false), HasSubstr("mode \"least\" is not known"));
}

TEST(Monitor, ImprovementIsMoreThanMinDelta) {
  const Monitor loss = Watch("loss", 0.25);
  EXPECT_TRUE(loss.Improves(0.7, 1));
  EXPECT_FALSE(loss.Improves(0.75, 1));
  const Monitor accuracy = Watch("accuracy", 0.25);
  EXPECT_TRUE(accuracy.Improves(0.8, 0.5));
  EXPECT_FALSE(accuracy.Improves(0.75, 0.5));
  EXPECT_FALSE(loss.Improves(NAN, 1));
}

// The epochs (from 0) after which weights are kept, and the one that stops.
struct Outcome {
  std::vector<int64_t> kept;
  int64_t stopped = -1;
};
Outcome RunStopping(const EarlyStopping::Options& options, const std::vector<double>& losses) {
  const EarlyStopping stopping(Watch("val_loss"), options);
  EarlyStoppingState state;
  Outcome outcome;
  for (size_t i = 0; i < losses.size() && outcome.stopped < 0; ++i) {
    const auto epoch = static_cast<int64_t>(i);
    const auto decision = stopping.OnEpochEnd(epoch, {{"loss", 9}, {"val_loss", losses[i]}}, state);
    if (decision.keep_weights) outcome.kept.push_back(epoch);
    if (decision.stop) outcome.stopped = epoch;
  }
  return outcome;
}

TEST(EarlyStopping, StopsAfterPatienceEpochsWithoutImprovement) {
  EXPECT_EQ(RunStopping({2, {}, false, 0}, {3, 2, 2.5, 1.5, 1.6, 1.7, 1}).stopped, 5);
  EXPECT_EQ(RunStopping({2, {}, false, 0}, {3, 2, 2.5, 1.5, 1.6, 1.4}).stopped, -1);
  EXPECT_EQ(RunStopping({0, {}, false, 0}, {3, 3}).stopped, 1);
}

TEST(EarlyStopping, WarmUpEpochsDoNotCount) { EXPECT_EQ(RunStopping({1, {}, true, 2}, {1, 1, 5, 6}).kept, std::vector<int64_t>{2}); }

TEST(EarlyStopping, WithoutReachingTheBaselineTheWaitGoesOn) {
  EXPECT_EQ(RunStopping({3, 0.5, false, 0}, {3, 2, 1, 1.5}).stopped, 3);
  EXPECT_EQ(RunStopping({3, 0.5, false, 0}, {3, 2, 0.4, 1.5, 1.5}).stopped, -1);
}

TEST(EarlyStopping, KeepsTheBestWeightsIfTheyAreToBeRestored) {
  EXPECT_THAT(RunStopping({2, {}, true, 0}, {3, 4, 2, 5, 6}).kept, ElementsAre(0, 2));
  EXPECT_THAT(RunStopping({2, {}, false, 0}, {3, 4, 2, 5, 6}).kept, ElementsAre());
}

TEST(EarlyStopping, AnEpochWithoutTheFigureDecidesNothing) {
  const EarlyStopping stopping(Watch("val_loss"), {0, {}, true, 0});
  EarlyStoppingState state;
  const auto decision = stopping.OnEpochEnd(3, {{"loss", 1}}, state);
  EXPECT_FALSE(decision.stop || decision.keep_weights);
  EXPECT_EQ(state.wait, 0);
}

std::vector<double> Rates(const ReduceOnPlateau::Options& options, const std::vector<double>& losses) {
  const ReduceOnPlateau plateau = *ReduceOnPlateau::Create(Watch("loss"), options);
  ReduceOnPlateauState state;
  std::vector<double> rates;
  double rate = 1;
  for (const double loss : losses) rates.push_back(rate = plateau.OnEpochEnd({{"loss", loss}}, rate, state).value_or(rate));
  return rates;
}

TEST(ReduceOnPlateau, ReducesAfterPatienceEpochs) {
  EXPECT_THAT(Rates({0.5, 2, 0, 0}, {3, 3, 3, 3, 3, 2}), ElementsAre(1, 1, 0.5, 0.5, 0.25, 0.25));
}

TEST(ReduceOnPlateau, CoolsDown) { EXPECT_THAT(Rates({0.5, 1, 2, 0}, {3, 3, 3, 3, 3}), ElementsAre(1, 0.5, 0.5, 0.25, 0.25)); }

TEST(ReduceOnPlateau, StopsAtTheLeastRate) { EXPECT_THAT(Rates({0.5, 1, 0, 0.4}, {3, 3, 3, 3}), ElementsAre(1, 0.5, 0.4, 0.4)); }

TEST(ReduceOnPlateau, FactorsThatDoNotReduceAreRefused) {
  for (const double factor : {1.0, 1.5, 0.0, -0.5, static_cast<double>(NAN)}) {
    EXPECT_EQ(ReduceOnPlateau::Create(Watch("loss"), {factor, 1, 0, 0}).status().code(), absl::StatusCode::kInvalidArgument) << factor;
  }
}

TEST(Best, IsTheFirstAndThenWhateverIsBetter) {
  const Best best(Watch("val_accuracy"));
  BestState state;
  std::vector<int64_t> chosen;
  const std::vector<double> values = {0.5, 0.5, 0.6, NAN, 0.55, 0.7};
  for (size_t i = 0; i < values.size(); ++i) {
    if (best.OnEpochEnd(static_cast<int64_t>(i), {{"val_accuracy", values[i]}}, state)) chosen.push_back(static_cast<int64_t>(i));
  }
  EXPECT_THAT(chosen, ElementsAre(0, 2, 5));
  EXPECT_EQ(state.epoch, 5);
}

}  // namespace
}  // namespace lockstep
