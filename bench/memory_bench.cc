// The peak of tensor memory of one training step of one virtual replica on one thread: predicted from steps of a few samples, and measured.
// Prints one line of JSON.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "trainer/loaded_model.h"
#include "trainer/trial.h"

namespace lockstep {
namespace {

absl::Status Compare(const RunSpec& spec, int classes) {
  memory::CpuTensorPool();
  at::set_num_threads(1);
  ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(spec.model_file, ""));
  ASSIGN_OR_RETURN(const Recipe recipe, ReadJobRecipe(spec, loaded, classes));
  const absl::Time start = absl::Now();
  ASSIGN_OR_RETURN(const TrialFigures predicted, RunTrial(spec, loaded, recipe));
  const absl::Time turn = absl::Now();
  ASSIGN_OR_RETURN(const int64_t measured, MeasureStep(spec, loaded, recipe));
  absl::PrintF(
      "{\"predicted_bytes\": %d, \"measured_bytes\": %d, \"ratio\": %.5f, \"fixed_bytes\": %d, \"place\": \"%s\", \"predict_seconds\": "
      "%.2f, "
      "\"step_seconds\": %.2f, \"note\": \"%s\"}\n",
      predicted.bytes_per_thread, measured, static_cast<double>(predicted.bytes_per_thread) / static_cast<double>(measured),
      predicted.fixed_bytes, predicted.place, absl::ToDoubleSeconds(turn - start), absl::ToDoubleSeconds(absl::Now() - turn),
      predicted.note);
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
  CLI11_PARSE(app, argc, argv);
  spec.image.width = spec.image.height;
  const absl::Status status = Compare(spec, classes);
  if (status.ok()) return 0;
  std::cerr << "lockstep-memory-bench: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::Main(argc, argv); }
