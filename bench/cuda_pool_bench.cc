// What c10's allocator of a CUDA device takes for the training of one virtual replica, recorded on CPU: by memory's model of it, and by
// itself over a runtime without a device, placed at the lowest free addresses and at the highest. Prints one line of JSON for each
// micro-batch.

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "memory/cuda_allocator.h"
#include "tests/cuda/side_by_side.h"
#include "trainer/loaded_model.h"
#include "trainer/trial.h"

namespace lockstep {
namespace {

// Until a step no longer takes more than the one before it.
constexpr int kMostSteps = 50;

absl::Status Compare(const RunSpec& spec, int classes, int steps) {
  ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(spec.model_file, ""));
  ASSIGN_OR_RETURN(const Recipe recipe, ReadJobRecipe(spec, loaded, classes));
  ASSIGN_OR_RETURN(const std::unique_ptr<Trial> trial, Trial::Create(spec, loaded, recipe));
  ASSIGN_OR_RETURN(const RecordedPass pass, trial->Record({}));
  const memory::Trace step = pass.At(spec.micro_batch);
  const auto& state = trial->state_blocks();

  const memory::CudaReplay said = memory::ReplayOnCuda(state, step, steps, 0);
  const int64_t first = memory::ReplayOnCuda(state, step, 1, 0).peak_reserved;
  const int64_t last = memory::ReplayOnCuda(state, step, kMostSteps, 0).peak_reserved;
  int settled = 1;
  while (settled < kMostSteps && memory::ReplayOnCuda(state, step, settled, 0).peak_reserved < last) ++settled;
  RealAllocator::Usage lowest, highest;
  std::string difference;
  size_t events = 0;
  {
    SideBySide both;
    both.Replay(state, step, steps);
    lowest = both.real();
    difference = both.difference();
    events = both.events();
  }
  {
    SideBySide both(0, RealAllocator::LimitBy::kFraction, RealAllocator::Placement::kHighest);
    both.Replay(state, step, steps);
    highest = both.real();
  }
  absl::PrintF(
      "{\"samples\": %d, \"events\": %d, \"allocated_bytes\": %d, \"reserved_bytes\": %d, \"first_step_reserved_bytes\": %d, "
      "\"settled_after_steps\": %d, "
      "\"real_allocated_bytes\": %d, \"real_reserved_bytes\": %d, \"difference\": \"%s\", \"highest_allocated_bytes\": %d, "
      "\"highest_reserved_bytes\": %d, "
      "\"place\": \"%s\"}\n",
      spec.micro_batch, events, said.peak_allocated, said.peak_reserved, first, settled, lowest.peak_allocated, lowest.peak_reserved,
      difference, highest.peak_allocated, highest.peak_reserved, said.place);
  std::cout.flush();
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  RunSpec spec;
  spec.kind = JobKind::kFit;
  std::vector<int> samples;
  int classes = 10, steps = 5;
  CLI::App app(
      "What the allocator of a CUDA device takes for steps recorded on CPU: by the model of it, and by itself. A line of JSON for each.");
  app.add_option("model", spec.model_file, "a .keras file with an image input")->required();
  app.add_option("--samples", samples, "of the virtual replica")->check(CLI::Range(1, 1 << 20))->required();
  app.add_option("--size", spec.image.height, "of a square picture")->required();
  app.add_option("--classes", classes);
  app.add_option("--steps", steps, "one after another")->check(CLI::Range(1, kMostSteps));
  CLI11_PARSE(app, argc, argv);
  spec.image.width = spec.image.height;
  spec.virtual_replicas = 1;
  spec.optimizer = "adam";
  memory::CpuTensorPool();
  at::set_num_threads(1);
  for (const int some : samples) {
    spec.micro_batch = spec.batch = some;
    if (const absl::Status status = Compare(spec, classes, steps); !status.ok()) {
      std::cerr << "lockstep-cuda-pool-bench: " << some << " samples: " << status.message() << "\n";
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::Main(argc, argv); }
