// The program as people run it, and what it paints.

#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/test_folder.h"
#include "examples/scenes.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace lockstep {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

class MakePictures : public testing::Test {
 protected:
  // Exit code, and all that was said.
  std::pair<int, std::string> Run(const std::string& options) {
    std::FILE* program = popen(absl::StrCat(LOCKSTEP_MAKE_PICTURES " ", options, " 2>&1").c_str(), "r");
    std::string said;
    for (int c = std::fgetc(program); c != EOF; c = std::fgetc(program)) said.push_back(static_cast<char>(c));
    return {WEXITSTATUS(pclose(program)), said};
  }
  // By path below `out`.
  std::map<std::string, std::string> Files(const std::string& out) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / out)) {
      if (entry.is_regular_file()) files[fs::relative(entry.path(), folder_ / out).string()] = *ReadFile(entry.path().string());
    }
    return files;
  }
  std::string Out(const std::string& name) { return absl::StrCat("--out ", folder_ / name, " "); }

  const TestFolder folder_;
};

TEST_F(MakePictures, FillsClassFoldersAndIsTheSameForTheSameSeed) {
  const std::string size = "--classes 3 --train 7 --validation 3 --size 40x24 ";
  ASSERT_EQ(Run(Out("a") + size + "--seed 4 --threads 1").first, 0);
  ASSERT_EQ(Run(Out("b") + size + "--seed 4 --threads 3").first, 0);
  ASSERT_EQ(Run(Out("c") + size + "--seed 5").first, 0);
  const auto a = Files("a");
  EXPECT_EQ(a.size(), 10u);
  EXPECT_TRUE(a.contains("train/bricks/bricks_00004.jpg"));
  EXPECT_TRUE(a.contains("validation/beach/beach_00007.jpg"));
  EXPECT_EQ(a, Files("b"));
  std::set<std::string> different;
  for (const auto& [path, bytes] : a) different.insert(bytes);
  for (const auto& [path, bytes] : Files("c")) different.insert(bytes);
  EXPECT_EQ(different.size(), 20u) << "two pictures are the same";
}

TEST_F(MakePictures, WrongOptionsAreNamed) {
  const auto [code, said] = Run(Out("x") + "--size 40");
  EXPECT_EQ(code, 2);
  EXPECT_THAT(said, AllOf(HasSubstr("--size"), HasSubstr("\"40\" is not WIDTHxHEIGHT")));
  EXPECT_THAT(Run(Out("x") + "--size 4x4"), testing::Pair(2, HasSubstr("--size")));
  EXPECT_THAT(Run(Out("x") + "--classes 11"), testing::Pair(2, HasSubstr("--classes")));
  EXPECT_THAT(Run(Out("x") + "--train 9"), testing::Pair(2, HasSubstr("each of the 10 classes needs a picture")));
  EXPECT_THAT(Run(Out("x") + "--colour red"), testing::Pair(2, HasSubstr("--colour")));
  EXPECT_THAT(Run("--train 10"), testing::Pair(2, HasSubstr("--out is required")));
  EXPECT_THAT(Run("--help"), testing::Pair(0, HasSubstr("--validation")));
  EXPECT_THAT(Run("--out /proc/none --train 10 --validation 10"), testing::Pair(1, HasSubstr("/proc/none")));
  EXPECT_FALSE(fs::exists(folder_ / "x"));
}

TEST(PaintScene, NoPictureIsOfOneColourAndClassesOverlapInTheirMeans) {
  std::array<std::pair<double, double>, kScenes.size()> range;  // of mean brightness
  for (size_t scene = 0; scene < kScenes.size(); ++scene) {
    range[scene] = {255, 0};
    for (uint64_t seed = 0; seed < 12; ++seed) {
      const Picture picture = PaintScene(scene, seed, 64, 48);
      EXPECT_EQ(picture.pixels.size(), 64u * 48 * 3);
      double sum = 0, squares = 0;
      for (const uint8_t value : picture.pixels) sum += value, squares += static_cast<double>(value) * value;
      const double n = static_cast<double>(picture.pixels.size()), mean = sum / n;
      EXPECT_GT(squares / n - mean * mean, 60) << kScenes[scene] << " " << seed;
      range[scene] = {std::min(range[scene].first, mean), std::max(range[scene].second, mean)};
    }
  }
  int alone = 0;
  for (size_t a = 0; a < range.size(); ++a) {
    bool overlaps = false;
    for (size_t b = 0; b < range.size(); ++b) overlaps |= a != b && range[a].first < range[b].second && range[b].first < range[a].second;
    alone += overlaps ? 0 : 1;
  }
  EXPECT_EQ(alone, 0) << "a class can be told by its brightness alone";
  EXPECT_TRUE(std::is_sorted(kScenes.begin(), kScenes.end()));
}

}  // namespace
}  // namespace lockstep
