#include "client/size.h"

#include <gtest/gtest.h>

namespace lockstep {
namespace {

TEST(ParseSize, UnitsOfBothKinds) {
  const struct {
    const char* text;
    uint64_t bytes;
  } cases[] = {{"0", 0},           {"65536", 65536},     {"512MiB", 512ull << 20}, {"512 mib", 512ull << 20},
               {"8G", 8ull << 30}, {"8GiB", 8ull << 30}, {"1.5GiB", 3ull << 29},   {"2GB", 2'000'000'000},
               {"1kB", 1000},      {"1KiB", 1024},       {"3T", 3ull << 40},       {" 7B ", 7}};
  for (const auto& c : cases) {
    ASSERT_TRUE(ParseSize(c.text).ok()) << c.text << ": " << ParseSize(c.text).status();
    EXPECT_EQ(*ParseSize(c.text), c.bytes) << c.text;
  }
}

TEST(ParseSize, RefusesWhatIsNoSize) {
  for (const char* text : {"", "MiB", "-1", "1.2.3", "5 apples", "1Kb!", "1e9", "99999999TiB", "0x10"}) {
    EXPECT_EQ(ParseSize(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
  EXPECT_NE(ParseSize("5 apples").status().message().find("'5 apples'"), absl::string_view::npos);
}

TEST(FormatSize, AtMostFourDigits) {
  EXPECT_EQ(FormatSize(0), "0 B");
  EXPECT_EQ(FormatSize(1023), "1023 B");
  EXPECT_EQ(FormatSize(1024), "1.00 KiB");
  EXPECT_EQ(FormatSize(512ull << 20), "512 MiB");
  EXPECT_EQ(FormatSize(3ull << 29), "1.50 GiB");
  EXPECT_EQ(FormatSize((1ull << 30) - 1), "1.00 GiB");
}

TEST(FormatSize, IsReadBackWithinItsPrecision) {
  for (uint64_t bytes = 1; bytes < (1ull << 45); bytes = bytes * 3 + 1) {
    const double back = static_cast<double>(*ParseSize(FormatSize(bytes)));
    EXPECT_NEAR(back / static_cast<double>(bytes), 1, 0.006) << FormatSize(bytes);
  }
}

}  // namespace
}  // namespace lockstep
