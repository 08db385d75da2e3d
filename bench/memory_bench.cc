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

// Segments that bring a step down to a part of what it takes without.
absl::StatusOr<std::vector<Segment>> SegmentsFor(const RecordedPass& plain, const CallGraph& graph, int samples, double part) {
  std::vector<Segment> segments;
  if (part >= 1) return segments;
  const memory::PassCosts costs = plain.CostsAt(samples, graph);
  const auto choice = memory::ChooseSegments(costs, static_cast<int64_t>(static_cast<double>(plain.PeakAt(samples).bytes) * part));
  if (!choice) return absl::NotFoundError("no segments bring it down so far");
  for (const memory::CallRange& range : choice->segments) segments.push_back({range.first, range.end});
  return segments;
}

absl::Status Compare(const RunSpec& spec, int classes, double part, int rounds) {
  memory::CpuTensorPool();
  at::set_num_threads(1);
  ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(spec.model_file, ""));
  ASSIGN_OR_RETURN(const Recipe recipe, ReadJobRecipe(spec, loaded, classes));
  ASSIGN_OR_RETURN(const std::unique_ptr<Trial> trial, Trial::Create(spec, loaded, recipe));
  const absl::Time start = absl::Now();
  ASSIGN_OR_RETURN(const RecordedPass plain, trial->Record({}));
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  ASSIGN_OR_RETURN(const std::vector<Segment> segments, SegmentsFor(plain, loaded.model->call_graph(), spec.micro_batch, part));
  const absl::Time chosen = absl::Now();
  RecordedPass pass = plain;
  if (!segments.empty()) {
    ASSIGN_OR_RETURN(pass, trial->Record(segments));
  }
  const memory::Peak predicted = pass.PeakAt(spec.micro_batch);
  const double record_seconds = absl::ToDoubleSeconds(absl::Now() - chosen);
  ASSIGN_OR_RETURN(Trial::Measured measured, trial->Measure(segments));
  // Turn by turn, so that both see the same machine.
  std::vector<double> ratios;
  for (int round = 0; round < rounds; ++round) {
    ASSIGN_OR_RETURN(const Trial::Measured without, trial->Measure({}));
    ASSIGN_OR_RETURN(const Trial::Measured with, trial->Measure(segments));
    ratios.push_back(with.seconds / without.seconds);
  }
  std::sort(ratios.begin(), ratios.end());
  std::vector<memory::CallRange> ranges;
  for (const Segment& segment : segments) ranges.push_back({segment.first, segment.end});
  const memory::Choice costs = memory::CostOf(plain.CostsAt(spec.micro_batch, loaded.model->call_graph()), ranges);
  absl::PrintF(
      "{\"predicted_bytes\": %d, \"measured_bytes\": %d, \"ratio\": %.5f, \"plain_bytes\": %d, \"state_bytes\": %d, \"place\": \"%s\", "
      "\"predict_seconds\": %.2f, \"record_seconds\": %.2f, \"step_seconds\": %.3f, \"segments\": %d, \"costs_bytes\": %d, "
      "\"costs_time_ratio\": %.3f, \"time_ratio\": %.3f, \"time_ratio_low\": %.3f, \"time_ratio_high\": %.3f, \"method\": \"%s\"}\n",
      predicted.bytes, measured.bytes, static_cast<double>(predicted.bytes) / static_cast<double>(measured.bytes),
      plain.PeakAt(spec.micro_batch).bytes, trial->state().Total(), predicted.place, seconds, record_seconds, measured.seconds,
      segments.size(), costs.bytes, costs.time_ratio, ratios.empty() ? 0 : ratios[ratios.size() / 2], ratios.empty() ? 0 : ratios.front(),
      ratios.empty() ? 0 : ratios.back(), pass.method());
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  RunSpec spec;
  spec.kind = JobKind::kFit;
  int classes = 10;
  CLI::App app("Predicted and measured peak of tensor memory of one virtual replica's step.");
  app.add_option("model", spec.model_file, "a .keras file with an image input")->required();
  app.add_option("--samples", spec.micro_batch, "of the virtual replica")->check(CLI::Range(1, 1 << 20))->required();
  app.add_option("--size", spec.image.height, "of a square picture")->required();
  app.add_option("--classes", classes);
  app.add_option("--optimizer", spec.optimizer, "as in a job");
  double part = 1;
  int rounds = 0;
  app.add_option("--part", part, "recompute so much that a step takes this part of what it takes without")->check(CLI::Range(0.01, 1.0));
  app.add_option("--rounds", rounds, "how often the time of a step is compared with that without recomputation")
      ->check(CLI::Range(0, 1000));
  CLI11_PARSE(app, argc, argv);
  spec.image.width = spec.image.height;
  spec.batch = spec.micro_batch;
  spec.virtual_replicas = 1;
  const absl::Status status = Compare(spec, classes, part, rounds);
  if (status.ok()) return 0;
  std::cerr << "lockstep-memory-bench: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::Main(argc, argv); }
