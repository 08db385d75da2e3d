// lockstep-make-pictures: a data set of photograph-like JPEGs in class folders, to train and to look at. The same files for the
// same options.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/encode_jpeg.h"
#include "examples/scenes.h"

namespace lockstep {
namespace {

struct Options {
  std::string out;
  int classes = static_cast<int>(kScenes.size());
  int train = 600;
  int validation = 150;
  std::string size = "256x192";
  int width = 0, height = 0;
  uint64_t seed = 1;
  int quality = 90;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
};

// Picture `number` of all, training's first: its class is number % classes.
absl::Status MakePicture(const Options& options, int number) {
  const bool train = number < options.train;
  const auto scene = static_cast<size_t>((train ? number : number - options.train) % options.classes);
  Picture picture = PaintScene(scene, options.seed * 0x100000001B3u + static_cast<uint64_t>(number), options.width, options.height);
  const std::string name(kScenes[scene]);
  const std::string path = absl::StrFormat("%s/%s/%s/%s_%05d.jpg", options.out, train ? "train" : "validation", name, name, number);
  dataset::Pixels pixels;
  pixels.height = picture.height;
  pixels.width = picture.width;
  pixels.data = std::move(picture.pixels);
  const std::string file = dataset::EncodeJpeg(pixels, {.quality = options.quality});
  std::ofstream out(path, std::ios::binary);
  out.write(file.data(), static_cast<std::streamsize>(file.size()));
  out.close();
  return out ? absl::OkStatus() : ErrnoStatus(errno, "cannot write", path);
}

absl::Status MakeAll(const Options& options) {
  for (const char* part : {"train", "validation"}) {
    if (part == std::string_view("validation") && options.validation == 0) continue;
    for (int c = 0; c < options.classes; ++c) {
      RETURN_IF_ERROR(MakeDirectories(absl::StrCat(options.out, "/", part, "/", std::string(kScenes[static_cast<size_t>(c)]))));
    }
  }
  std::atomic<int> next{0};
  std::mutex mutex;
  absl::Status first_error;
  const auto work = [&] {
    for (int number = next++; number < options.train + options.validation; number = next++) {
      const absl::Status status = MakePicture(options, number);
      if (status.ok()) continue;
      next = options.train + options.validation;
      const std::lock_guard<std::mutex> lock(mutex);
      if (first_error.ok()) first_error = status;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < options.threads; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  return first_error;
}

std::string CheckSize(Options& options) {
  char end = 0;
  if (std::sscanf(options.size.c_str(), "%dx%d%c", &options.width, &options.height, &end) == 2 &&
      std::min(options.width, options.height) >= 8 && std::max(options.width, options.height) <= 8192) {
    return "";
  }
  return absl::StrCat("--size: \"", options.size, "\" is not WIDTHxHEIGHT with sides of 8 to 8192 pixels, such as 256x192");
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Makes photograph-like JPEGs in class folders under OUT/train and OUT/validation.");
  app.add_option("--out", options.out, "the folder to write to; made if it is not there")->required();
  app.add_option("--classes", options.classes, "kinds of scenes")
      ->check(CLI::Range(1, static_cast<int>(kScenes.size())))
      ->capture_default_str();
  app.add_option("--train", options.train, "training pictures, over all classes")->check(CLI::Range(1, 10'000'000))->capture_default_str();
  app.add_option("--validation", options.validation, "validation pictures, over all classes")
      ->check(CLI::Range(0, 10'000'000))
      ->capture_default_str();
  app.add_option("--size", options.size, "WIDTHxHEIGHT in pixels")->capture_default_str();
  app.add_option("--seed", options.seed, "other numbers give other pictures")->capture_default_str();
  app.add_option("--quality", options.quality, "of JPEG")->check(CLI::Range(1, 100))->capture_default_str();
  app.add_option("--threads", options.threads, "pictures painted at a time; changes nothing in them")->check(CLI::Range(1, 1024));
  app.callback([&] {
    const std::string problem = CheckSize(options);
    if (!problem.empty()) throw CLI::ValidationError(problem);
    if (options.train < options.classes || (options.validation > 0 && options.validation < options.classes)) {
      throw CLI::ValidationError(absl::StrCat("--train and --validation: each of the ", options.classes, " classes needs a picture"));
    }
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::Status status = MakeAll(options);
  if (!status.ok()) {
    std::cerr << "lockstep-make-pictures: " << status.message() << "\n";
    return 1;
  }
  std::cout << options.train << " pictures in " << options.out << "/train, " << options.validation << " in " << options.out
            << "/validation: " << options.classes << " classes, " << options.width << "x" << options.height << " pixels\n";
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::Main(argc, argv); }
