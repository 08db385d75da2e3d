// Files to batches of floats as training gets them, with one thread: how many pictures a second, and with --dump what comes out.
// bench/decode.py runs it beside torchvision. Prints one line of JSON.

#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "dataset/index.h"
#include "dataset/pipeline.h"
#include "dataset/sampler.h"

namespace lockstep::dataset {
namespace {

struct Options {
  std::string folder;
  int size = 224;
  int64_t batch = 32;
  int passes = 1;
  bool full_decode = false;
  std::string dump;
};

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

absl::Status Measure(const Options& options, const std::string& index_path) {
  RETURN_IF_ERROR(BuildIndex(options.folder, index_path, {}).status());
  ASSIGN_OR_RETURN(const std::unique_ptr<Index> index, Index::Open(index_path));
  ASSIGN_OR_RETURN(const std::unique_ptr<Sampler> sampler, Sampler::Create({.num_samples = index->size(), .batch = options.batch}));
  PipelineOptions pipeline_options;
  pipeline_options.image = {.height = options.size, .width = options.size, .scale = 1.0 / 255, .full_decode = options.full_decode};
  ASSIGN_OR_RETURN(const std::unique_ptr<Pipeline> pipeline, Pipeline::Create(pipeline_options, *index, options.folder, *sampler));
  std::ofstream dump;
  if (!options.dump.empty()) dump.open(options.dump, std::ios::binary);
  const absl::Time start = absl::Now();
  const double cpu_start = CpuSeconds();
  int64_t images = 0;
  for (int64_t step = 0; step < sampler->StepsPerEpoch() * options.passes; ++step) {
    ASSIGN_OR_RETURN(const Batch batch, pipeline->Next(0));
    images += static_cast<int64_t>(batch.size());
    if (step < sampler->StepsPerEpoch()) {
      const auto bytes = static_cast<int64_t>(batch.size()) * options.size * options.size * 3 * static_cast<int64_t>(sizeof(float));
      dump.write(reinterpret_cast<const char*>(batch.images()), bytes);
    }
  }
  absl::PrintF("{\"images\": %d, \"wall_seconds\": %.6f, \"cpu_seconds\": %.6f}\n", images, absl::ToDoubleSeconds(absl::Now() - start),
               CpuSeconds() - cpu_start);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Decodes a folder of class folders as training does, with one thread, and measures it.");
  app.add_option("--folder", options.folder, "class folders of pictures")->required();
  app.add_option("--size", options.size, "height and width of what comes out, in pixels")->check(CLI::Range(1, 4096));
  app.add_option("--batch", options.batch)->check(CLI::Range(1, 4096));
  app.add_option("--passes", options.passes, "times over the folder")->check(CLI::Range(1, 1'000'000));
  app.add_flag("--full-decode", options.full_decode, "JPEGs at full size, then resized");
  app.add_option("--dump", options.dump, "a file for the floats of the first pass, in order of the paths");
  CLI11_PARSE(app, argc, argv);
  const std::string index = absl::StrFormat("%s/lockstep-decode-bench.%d.index", std::filesystem::temp_directory_path().string(), getpid());
  const absl::Status status = Measure(options, index);
  std::filesystem::remove(index);
  if (status.ok()) return 0;
  std::cerr << "lockstep-decode-bench: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace lockstep::dataset

int main(int argc, char** argv) { return lockstep::dataset::Main(argc, argv); }
