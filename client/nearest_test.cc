#include "client/nearest.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(DidYouMean, TheNearestOrAll) {
  const std::vector<std::string> keys = {"train", "validation", "image"};
  EXPECT_EQ(DidYouMean("trian", keys), "did you mean 'train'?");
  EXPECT_EQ(DidYouMean("valdation", keys), "did you mean 'validation'?");
  EXPECT_EQ(DidYouMean("xyzzy", keys), "known are: train, validation, image");
}

}  // namespace
}  // namespace lockstep
