#include "dataset/resize.h"

#include <cmath>
#include <limits>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "dataset/test_pictures.h"
#include "gtest/gtest.h"

namespace lockstep::dataset {
namespace {

std::vector<float> Resized(const Pixels& pixels, const ImageOptions& options) {
  std::vector<float> out(static_cast<size_t>(options.height) * options.width * options.channels, std::nanf(""));
  Resizer(options).Run(pixels, out.data());
  return out;
}

// What others make of the picture of 9 rows and 7 columns that Pattern() gives: TensorFlow 2.21's tf.image.resize with these arguments;
// where antialias is true, Pillow 13 in mode F gives the same to five digits. TensorFlow's bicubic filter without antialias
// is a table of 1024 places, and as coarse.
struct Expected {
  Method method;
  bool antialias;
  int height, width;
  double tolerance;
  std::vector<float> values;
};
const std::vector<Expected> kExpected = {
    {Method::kBilinear, true, 4, 3, 0.02, {102.66, 118.84, 112.09, 123.10, 133.92, 110.34, 129.28, 143.93, 140.15, 133.06, 139.95, 122.48}},
    {Method::kBilinear, false, 4, 3, 0.02, {86.71, 53.25, 83.79, 180.46, 183.75, 107.42, 103.54, 191.25, 214.71, 111.96, 97.75, 94.46}},
    {Method::kBicubic, true, 4, 3, 0.02, {98.38, 124.82, 110.32, 122.84, 133.44, 111.08, 132.10, 142.43, 137.94, 131.46, 148.02, 119.92}},
    {Method::kBicubic, false, 4, 3, 0.3, {76.96, 49.28, 73.73, 201.49, 183.75, 106.39, 93.41, 197.40, 232.95, 107.54, 101.72, 80.73}},
    {Method::kNearest, false, 4, 3, 0.02, {135.00, 75.00, 15.00, 223.00, 191.00, 68.00, 55.00, 216.00, 212.00, 143.00, 76.00, 9.00}},
    {Method::kArea, false, 4, 3, 0.02, {88.94, 120.68, 103.67, 125.38, 130.02, 115.70, 133.38, 147.40, 151.94, 117.63, 148.25, 120.63}},
    {Method::kBilinear, true, 5, 10, 0.02, {21.14,  73.39,  135.32, 189.02, 100.09, 83.39,  143.49, 120.39, 97.29,  79.14,
                                            78.62,  136.86, 158.97, 87.48,  119.99, 149.31, 161.20, 92.20,  115.21, 173.44,
                                            148.00, 105.78, 85.93,  127.06, 193.43, 162.78, 47.29,  115.60, 122.93, 102.06,
                                            169.38, 127.64, 122.27, 202.81, 131.98, 103.02, 127.74, 154.78, 145.82, 123.06,
                                            37.14,  105.74, 176.48, 217.43, 142.68, 121.33, 158.42, 145.32, 121.61, 98.36}},
    {Method::kBilinear, false, 5, 10, 0.02, {14.80,  66.39,  132.05, 197.71, 96.97,  73.03,  133.57, 127.55, 98.49,  65.60,
                                             81.40,  139.92, 150.40, 45.68,  107.36, 163.92, 193.97, 112.35, 131.08, 189.60,
                                             148.00, 72.65,  40.75,  124.05, 207.35, 169.20, 26.95,  110.25, 78.35,  3.00,
                                             214.60, 146.18, 123.10, 215.22, 115.07, 85.74,  140.94, 182.10, 155.67, 105.40,
                                             25.20,  104.51, 182.70, 219.94, 149.93, 129.42, 163.36, 154.40, 130.59, 105.40}},
    {Method::kBicubic, true, 5, 10, 0.02, {10.34,  60.16,  139.25, 203.73, 88.80,  64.58,  148.10, 126.01, 92.23,  69.41,
                                           72.69,  147.94, 175.25, 75.08,  115.37, 161.71, 165.82, 73.70,  107.46, 184.67,
                                           158.39, 104.21, 71.48,  122.29, 221.98, 178.16, 30.36,  120.04, 134.41, 104.05,
                                           184.71, 120.59, 106.56, 210.04, 129.52, 89.33,  127.26, 163.05, 150.08, 121.39,
                                           16.79,  97.89,  191.69, 222.83, 134.67, 110.59, 163.06, 145.21, 113.66, 90.26}},
    {Method::kBicubic, false, 5, 10, 0.3, {5.68,   54.19,  136.37, 210.15, 87.03,  51.13,  130.19, 137.81, 97.25,  53.78,
                                           74.70,  151.21, 162.25, 24.03,  94.03,  180.43, 211.34, 106.99, 131.11, 204.78,
                                           156.32, 67.38,  22.75,  123.77, 233.06, 181.16, 19.43,  120.12, 83.62,  -5.32,
                                           239.53, 147.16, 112.51, 227.67, 99.91,  59.24,  148.04, 205.50, 162.89, 95.11,
                                           7.70,   97.22,  197.13, 224.47, 148.30, 124.47, 166.85, 161.24, 132.36, 105.94}},
    {Method::kNearest, false, 5, 10, 0.02, {0.00,   91.00,  91.00,  182.00, 17.00,  17.00,  108.00, 199.00, 199.00, 34.00,
                                            74.00,  179.00, 179.00, 28.00,  133.00, 133.00, 238.00, 87.00,  87.00,  192.00,
                                            148.00, 11.00,  11.00,  130.00, 249.00, 249.00, 21.00,  140.00, 140.00, 3.00,
                                            222.00, 99.00,  99.00,  232.00, 18.00,  18.00,  151.00, 193.00, 193.00, 70.00,
                                            40.00,  187.00, 187.00, 243.00, 134.00, 134.00, 190.00, 246.00, 246.00, 137.00}},
    {Method::kArea, false, 5, 10, 0.02, {16.44,  70.22,  124.00, 204.67, 89.03,  69.67,  136.89, 120.03, 96.60,  69.11,
                                         82.22,  143.11, 171.49, 67.78,  123.57, 151.95, 167.11, 86.16,  118.33, 179.22,
                                         148.00, 102.22, 76.76,  130.00, 200.56, 175.19, 41.22,  125.89, 121.38, 96.56,
                                         185.33, 130.41, 106.56, 210.56, 124.76, 100.73, 126.44, 171.40, 156.94, 127.67,
                                         23.56,  105.78, 175.00, 220.33, 140.25, 123.33, 161.11, 143.59, 124.05, 101.89}},
};

Pixels Pattern() {
  Pixels pixels;
  pixels.height = 9;
  pixels.width = 7;
  pixels.channels = 1;
  for (int y = 0; y < 9; ++y) {
    for (int x = 0; x < 7; ++x) pixels.data.push_back(static_cast<uint8_t>((37 * y + 91 * x + (y * x) % 13 * 7) % 256));
  }
  return pixels;
}

class ResizeLikeOthers : public testing::TestWithParam<Expected> {};

TEST_P(ResizeLikeOthers, OneChannelAndThree) {
  const Expected& expected = GetParam();
  const Pixels one = Pattern();
  Pixels three = one;
  three.channels = 3;
  three.data.clear();
  for (const uint8_t value : one.data) three.data.insert(three.data.end(), {value, static_cast<uint8_t>(255 - value), value});
  ImageOptions options{
      .height = expected.height, .width = expected.width, .channels = 1, .method = expected.method, .antialias = expected.antialias};
  const std::vector<float> grey = Resized(one, options);
  options.channels = 3;
  const std::vector<float> colour = Resized(three, options);
  ASSERT_EQ(grey.size(), expected.values.size());
  for (size_t i = 0; i < grey.size(); ++i) {
    EXPECT_NEAR(grey[i], expected.values[i], expected.tolerance) << "place " << i;
    EXPECT_EQ(colour[3 * i], grey[i]);
    EXPECT_NEAR(colour[3 * i + 1], 255 - grey[i], 1e-3);
    EXPECT_EQ(colour[3 * i + 2], grey[i]);
  }
}

std::string NameOf(const testing::TestParamInfo<Expected>& test) {
  const char* names[] = {"Nearest", "Bilinear", "Bicubic", "Area"};
  return std::string(names[static_cast<int>(test.param.method)]) + (test.param.antialias ? "Antialias" : "") + "To" +
         std::to_string(test.param.height) + "x" + std::to_string(test.param.width);
}

INSTANTIATE_TEST_SUITE_P(Resize, ResizeLikeOthers, testing::ValuesIn(kExpected), NameOf);

TEST(Resize, AUniformPictureStaysUniformInAllWays) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    Pixels pixels;
    pixels.height = 1 + static_cast<int>(random() % 90);
    pixels.width = 1 + static_cast<int>(random() % 90);
    pixels.channels = random() % 2 == 0 ? 1 : 3;
    pixels.data.assign(static_cast<size_t>(pixels.height) * pixels.width * pixels.channels, 200);
    const ImageOptions options{.height = 1 + static_cast<int>(random() % 60),
                               .width = 1 + static_cast<int>(random() % 60),
                               .channels = pixels.channels,
                               .method = static_cast<Method>(random() % 4),
                               .antialias = random() % 2 == 0};
    SCOPED_TRACE(testing::Message() << pixels.height << "x" << pixels.width << " to " << options.height << "x" << options.width
                                    << ", method " << static_cast<int>(options.method) << ", antialias " << options.antialias);
    for (const float value : Resized(pixels, options)) ASSERT_NEAR(value, 200, 1e-3);
  }
}

TEST(Resize, ScaleMeanAndStdByChannel) {
  Pixels pixels;
  pixels.height = pixels.width = 1;
  pixels.data = {51, 102, 204};
  const ImageOptions options{.height = 2, .width = 2, .scale = 1.0 / 255, .mean = {0.1, 0.2, 0.3}, .std = {0.5}};
  const std::vector<float> out = Resized(pixels, options);
  for (size_t i = 0; i < out.size(); i += 3) {
    EXPECT_NEAR(out[i], (0.2 - 0.1) / 0.5, 1e-6);
    EXPECT_NEAR(out[i + 1], (0.4 - 0.2) / 0.5, 1e-6);
    EXPECT_NEAR(out[i + 2], (0.8 - 0.3) / 0.5, 1e-6);
  }
}

// The tables of one size must not leak into the next.
TEST(Resize, OneResizerForManySizesGivesWhatAFreshOneGives) {
  const ImageOptions options{.height = 20, .width = 30, .scale = 1.0 / 255};
  Resizer resizer(options);
  for (const auto& [height, width] : std::vector<std::pair<int, int>>{{50, 40}, {20, 30}, {7, 90}, {50, 40}, {1, 1}, {50, 41}}) {
    const Pixels pixels = NoisyPixels(height, width, 3);
    std::vector<float> out(20 * 30 * 3);
    resizer.Run(pixels, out.data());
    EXPECT_EQ(out, Resized(pixels, options)) << height << "x" << width;
  }
}

// A row ends where it ends: a vector's spare lane must not reach the float after the picture.
TEST(Resize, NothingIsWrittenBehindThePicture) {
  const ImageOptions options{.height = 3, .width = 5};
  std::vector<float> out(3 * 5 * 3 + 4, -1);
  Resizer(options).Run(NoisyPixels(8, 8, 3), out.data());
  EXPECT_EQ(std::vector<float>(out.end() - 4, out.end()), std::vector<float>(4, -1));
}

// Same bits on every machine: the sums are plain, in order, and not contracted. Recomputed here without any vectors.
TEST(Resize, TheSumsAreInOrder) {
  const Pixels pixels = NoisyPixels(23, 31, 3);
  const ImageOptions options{.height = 10, .width = 12, .scale = 1.0 / 255, .mean = {0.4, 0.5, 0.6}, .std = {0.2, 0.3, 0.4}};
  const std::vector<float> out = Resized(pixels, options);
  const auto weights = [](int source, int target, int i, int& begin) {
    const double ratio = static_cast<double>(source) / target, centre = (i + 0.5) * ratio;
    begin = std::max(0, static_cast<int>(std::floor(centre - ratio + 0.5)));
    const int end = std::min(source, static_cast<int>(std::floor(centre + ratio + 0.5)));
    std::vector<double> raw;
    double total = 0;
    for (int k = begin; k < end; ++k) raw.push_back(std::max(0.0, 1 - std::fabs((k + 0.5 - centre) / ratio))), total += raw.back();
    std::vector<float> made;
    for (const double weight : raw) made.push_back(static_cast<float>(weight / total));
    return made;
  };
  for (int y = 0; y < options.height; ++y) {
    for (int x = 0; x < options.width; ++x) {
      for (size_t c = 0; c < 3; ++c) {
        int top = 0, left = 0;
        const std::vector<float> rows = weights(23, 10, y, top), columns = weights(31, 12, x, left);
        float sum = 0;
        for (size_t k = 0; k < columns.size(); ++k) {
          float column = 0;
          for (size_t j = 0; j < rows.size(); ++j) {
            const size_t at = (static_cast<size_t>(top) + j) * 31 + static_cast<size_t>(left) + k;
            const volatile float product = rows[j] * static_cast<float>(pixels.data[3 * at + c]);
            column = j == 0 ? product : column + product;
          }
          const volatile float product = column * columns[k];
          sum = k == 0 ? product : sum + product;
        }
        const float multiply = static_cast<float>(options.scale / options.std[c]);
        const volatile float scaled = sum * multiply;
        const float expected = scaled + static_cast<float>(-options.mean[c] / options.std[c]);
        EXPECT_EQ(out[(static_cast<size_t>(y) * 12 + static_cast<size_t>(x)) * 3 + c], expected) << y << " " << x << " " << c;
      }
    }
  }
}

TEST(ParseMethod, KnowsFour) {
  EXPECT_EQ(ParseMethod("bicubic"), Method::kBicubic);
  EXPECT_EQ(ParseMethod("area"), Method::kArea);
  EXPECT_EQ(ParseMethod("lanczos"), std::nullopt);
}

}  // namespace
}  // namespace lockstep::dataset
