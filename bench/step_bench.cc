// Forward and backward of one virtual replica on one thread, as a trainer computes them, without data, all-reduce or optimizer:
// milliseconds by layer. Prints one line of JSON. With ONEDNN_VERBOSE=1, oneDNN adds the time of each of its primitives.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "model/keras_archive.h"
#include "model/model.h"

namespace lockstep {
namespace {

struct Options {
  std::string model;
  int64_t samples = 16;
  int steps = 10;
};

absl::Status Measure(const Options& options) {
  memory::CpuTensorPool();
  at::set_num_threads(1);
  ASSIGN_OR_RETURN(const auto archive, KerasArchive::Open(options.model));
  ASSIGN_OR_RETURN(const auto model, Model::Load(*archive, {}));
  std::vector<at::Tensor> variables;
  for (int i = 0; i < static_cast<int>(model->variables().size()); ++i) {
    ASSIGN_OR_RETURN(at::Tensor value, model->InitialValue(*archive, i));
    variables.push_back(value.requires_grad_(model->variables()[static_cast<size_t>(i)].trainable));
  }
  const std::vector<int64_t>& shape = model->input_shape();
  at::manual_seed(1);
  const at::Tensor images = at::rand({options.samples, shape[0], shape[1], shape[2]});
  std::vector<double> forward, backward;
  for (int step = 0; step < options.steps; ++step) {
    const absl::Time start = absl::Now();
    ForwardContext context;
    context.training = true;
    context.step = static_cast<uint64_t>(step);
    at::Tensor output = model->Forward(images, variables, context);
    const at::Tensor loss = (context.logits.defined() ? context.logits : output).square().sum();
    context.logits.reset();
    output.reset();
    const absl::Time turn = absl::Now();
    torch::autograd::backward({loss}, {});
    for (at::Tensor& variable : variables) variable.mutable_grad().reset();
    forward.push_back(absl::ToDoubleMilliseconds(turn - start));
    backward.push_back(absl::ToDoubleMilliseconds(absl::Now() - turn));
  }
  const auto median = [](std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
    return values[values.size() / 2];
  };
  absl::PrintF("{\"forward_ms\": %.2f, \"backward_ms\": %.2f, \"peak_bytes\": %d}\n", median(forward), median(backward),
               memory::CpuTensorPool().GetUsage().peak_bytes);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Times forward and backward of one virtual replica on one thread.");
  app.add_option("model", options.model, "a .keras file with an image input")->required();
  app.add_option("--samples", options.samples, "of the virtual replica")->check(CLI::Range(1, 4096));
  app.add_option("--steps", options.steps)->check(CLI::Range(1, 1'000'000));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Measure(options);
  if (status.ok()) return 0;
  std::cerr << "lockstep-step-bench: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) { return lockstep::Main(argc, argv); }
