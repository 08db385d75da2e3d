// The peak of tensor memory of one training step of one virtual replica on one thread: predicted from steps of a few samples, and measured.
// Prints one line of JSON.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "trainer/loaded_model.h"
#include "trainer/trial.h"

namespace lockstep {
namespace {

// Segments that bring a step down to a part of what it takes without, chosen as planning chooses them, and the step as recorded with them
// in place of `pass`, which is without.
absl::StatusOr<std::vector<Segment>> SegmentsFor(Trial& trial, const CallGraph& graph, int samples, double part, RecordedPass& pass) {
  if (part >= 1) return std::vector<Segment>();
  const RecordedPass plain = pass;
  const memory::PassCosts costs = plain.CostsAt(samples, graph);
  const auto limit = static_cast<int64_t>(static_cast<double>(plain.PeakAt(samples).bytes) * part);
  for (int64_t target = limit;;) {
    auto choice = memory::ChooseSegments(costs, target);
    if (!choice) return absl::NotFoundError("no segments bring it down so far");
    ASSIGN_OR_RETURN(pass, trial.Record(choice->segments));
    const int64_t above = pass.PeakAt(samples).bytes - limit;
    if (above <= 0) return std::move(choice->segments);
    target -= above;
  }
}

struct Options {
  int classes = 10;
  double part = 1;
  int rounds = 0;
};

absl::Status Compare(const RunSpec& spec, const Options& options) {
  const int64_t samples = spec.micro_batch;
  ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(spec.model_file, ""));
  const CallGraph& graph = loaded.model->call_graph();
  ASSIGN_OR_RETURN(const Recipe recipe, ReadJobRecipe(spec, loaded, options.classes));
  memory::BlockPool& pool = memory::CpuTensorPool();
  pool.ResetPeak();
  const int64_t before = pool.GetUsage().peak_bytes;
  ASSIGN_OR_RETURN(const std::unique_ptr<Trial> trial, Trial::Create(spec, loaded, recipe));
  const absl::Time start = absl::Now();
  ASSIGN_OR_RETURN(const RecordedPass plain, trial->Record({}));
  const absl::Time recorded = absl::Now();
  RecordedPass pass = plain;
  ASSIGN_OR_RETURN(const std::vector<Segment> segments, SegmentsFor(*trial, graph, samples, options.part, pass));
  const memory::Peak predicted = pass.PeakAt(samples);
  const int64_t predicted_bytes = trial->state().Total() + predicted.bytes;
  // Warm, then all that tensors take at the highest moment.
  ASSIGN_OR_RETURN(Trial::Measured measured, trial->Measure(segments));
  const int64_t measured_bytes = pool.GetUsage().peak_bytes - before;
  // Turn by turn, so that both see the same machine.
  std::vector<double> ratios = {};
  for (int round = 0; round < options.rounds; ++round) {
    ASSIGN_OR_RETURN(const Trial::Measured without, trial->Measure({}));
    ASSIGN_OR_RETURN(const Trial::Measured with, trial->Measure(segments));
    ratios.push_back(with.seconds / without.seconds);
  }
  std::sort(ratios.begin(), ratios.end());
  double expected_ratio = 1;
  if (!segments.empty()) expected_ratio = memory::CostOf(plain.CostsAt(samples, graph), segments).time_ratio;
  absl::PrintF(
      "{\"samples\": %d, \"optimizer\": \"%s\", \"part\": %.2f, \"predicted_bytes\": %d, \"measured_bytes\": %d, \"ratio\": %.5f, "
      "\"step_bytes\": %d, \"plain_step_bytes\": %d, \"place\": \"%s\", \"record_seconds\": %.2f, \"step_seconds\": %.3f, \"segments\": "
      "%d, "
      "\"expected_time_ratio\": %.3f, \"time_ratio\": %.3f, \"time_ratio_low\": %.3f, \"time_ratio_high\": %.3f, \"method\": \"%s\"}\n",
      samples, spec.optimizer, options.part, predicted_bytes, measured_bytes,
      static_cast<double>(predicted_bytes) / static_cast<double>(measured_bytes), predicted.bytes, plain.PeakAt(samples).bytes,
      predicted.place, absl::ToDoubleSeconds(recorded - start), measured.seconds, segments.size(), expected_ratio,
      ratios.empty() ? 0 : ratios[ratios.size() / 2], ratios.empty() ? 0 : ratios.front(), ratios.empty() ? 0 : ratios.back(),
      pass.method());
  std::cout.flush();
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  RunSpec spec;
  spec.kind = JobKind::kFit;
  Options options;
  std::vector<int> samples;
  std::vector<double> parts = {1};
  std::vector<std::string> optimizers = {"sgd"};
  CLI::App app("Predicted and measured peak of tensor memory of one virtual replica's step, with its state. A line of JSON for each.");
  app.add_option("model", spec.model_file, "a .keras file with an image input")->required();
  app.add_option("--samples", samples, "of the virtual replica")->check(CLI::Range(1, 1 << 20))->required();
  app.add_option("--size", spec.image.height, "of a square picture")->required();
  app.add_option("--classes", options.classes);
  app.add_option("--optimizers", optimizers, "as in a job");
  app.add_option("--parts", parts, "recompute so much that a step takes this part of what it takes without")->check(CLI::Range(0.01, 1.0));
  app.add_option("--rounds", options.rounds, "how often the time of a step is compared with that without recomputation")
      ->check(CLI::Range(0, 1000));
  CLI11_PARSE(app, argc, argv);
  spec.image.width = spec.image.height;
  spec.virtual_replicas = 1;
  memory::CpuTensorPool();
  at::set_num_threads(1);
  for (const int some : samples) {
    for (const double part : parts) {
      for (const std::string& optimizer : optimizers) {
        spec.micro_batch = spec.batch = some;
        spec.optimizer = optimizer;
        options.part = part;
        const absl::Status status = Compare(spec, options);
        if (status.ok()) continue;
        std::cerr << "lockstep-memory-bench: " << some << " samples, " << part << " of its memory: " << status.message() << "\n";
        if (!absl::IsNotFound(status)) return 1;
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::Main(argc, argv); }
