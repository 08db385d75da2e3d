#include "base/edit_distance.h"

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

}  // namespace
}  // namespace lockstep
