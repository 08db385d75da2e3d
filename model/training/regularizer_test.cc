#include "model/training/regularizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lockstep {
namespace {

using testing::HasSubstr;

Json Object(const std::string& name, const Json& config) {
  return {{"module", "keras.regularizers"}, {"class_name", name}, {"config", config}, {"registered_name", nullptr}};
}

TEST(Regularizer, IsReadAsKerasWritesIt) {
  const Penalty both = *ReadRegularizer(Object("L1L2", {{"l1", 0.25}, {"l2", 0.5}}), "dense/kernel", 8, 3);
  EXPECT_EQ(both.l1, 0.25);
  EXPECT_EQ(both.l2, 0.5);
  EXPECT_EQ(both.offset, 8);
  EXPECT_EQ(ReadRegularizer("l2", "dense/kernel", 0, 1)->l2, 0.01);
  EXPECT_EQ(ReadRegularizer(Json(), "dense/kernel", 0, 1)->l1, 0);
}

TEST(Regularizer, UnknownOnesAreRefusedWithTheVariable) {
  const auto status = ReadRegularizer(Object("OrthogonalRegularizer", {{"factor", 0.1}}), "dense/kernel", 0, 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("regularizer of dense/kernel: \"OrthogonalRegularizer\" is not known"));
  EXPECT_FALSE(ReadRegularizer(Object("L2", {{"l2", -1}}), "x", 0, 1).ok());
  EXPECT_FALSE(ReadRegularizer(Object("L2", {{"l3", 1}}), "x", 0, 1).ok());
}

TEST(Penalties, GradientIsTheDerivativeOfTheSum) {
  const std::vector<Penalty> penalties = {{0.3, 0.2, 1, 4}, {0, 0.5, 8, 2}};
  std::vector<double> parameters = {9, 0.5, -0.25, 1.5, -2, 9, 9, 9, 0.75, -1, 9}, gradients(11, 0.125);
  const double sum = AddPenalties<double>(penalties, absl::MakeConstSpan(parameters), 2, absl::MakeSpan(gradients));
  EXPECT_DOUBLE_EQ(sum, SumPenalties<double>(penalties, absl::MakeConstSpan(parameters)));
  for (size_t i = 0; i < parameters.size(); ++i) {
    const double h = 1e-6, value = parameters[i];
    parameters[i] = value + h;
    const double more = SumPenalties<double>(penalties, absl::MakeConstSpan(parameters));
    parameters[i] = value - h;
    const double less = SumPenalties<double>(penalties, absl::MakeConstSpan(parameters));
    parameters[i] = value;
    EXPECT_NEAR(gradients[i], 0.125 + 2 * (more - less) / (2 * h), 1e-8) << i;
  }
}

TEST(Penalties, AbsoluteValueIsFlatAtZero) {
  std::vector<float> parameters = {0}, gradients = {0};
  AddPenalties<float>({{1, 0, 0, 1}}, absl::MakeConstSpan(parameters), 1, absl::MakeSpan(gradients));
  EXPECT_EQ(gradients[0], 0);
}

}  // namespace
}  // namespace lockstep
