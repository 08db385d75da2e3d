#include "client/nearest.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(EditDistance, CountsEditsAndSwaps) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("abc", ""), 3u);
  EXPECT_EQ(EditDistance("image", "image"), 0u);
  EXPECT_EQ(EditDistance("imgae", "image"), 1u);
  EXPECT_EQ(EditDistance("imge", "image"), 1u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
}

TEST(DidYouMean, TheNearestOrAll) {
  const std::vector<std::string> keys = {"train", "validation", "image"};
  EXPECT_EQ(DidYouMean("trian", keys), "did you mean 'train'?");
  EXPECT_EQ(DidYouMean("valdation", keys), "did you mean 'validation'?");
  EXPECT_EQ(DidYouMean("xyzzy", keys), "known are: train, validation, image");
}

}  // namespace
}  // namespace lockstep
