// Runs models and writes down what came out, for the parity tests to compare with Keras.
//
//   model_probe [--gradients] [--float64] [--plain] [--time N] FOLDER …
//
// Each FOLDER holds model.keras and inputs.h5 (images; with --gradients also labels or cotangent), and gets outputs.h5:
//   output, logits        of inference, or, with --gradients, of the forward pass in training
//   loss                  mean sparse categorical cross-entropy of `labels`, or the sum of output · cotangent
//   gradients/PATH        of the loss, by each trainable variable's HDF5 path, in Keras's layout
//   input_gradient        of the loss
//   moving/PATH           moving statistics after one step
// --plain: no fusing of layers. --time N: nothing is written; says how long the fastest of N training steps took. Exit status 1, and a line
// on stderr, for every model that cannot be run.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "model/keras_archive.h"
#include "model/model.h"
#include "tests/parity/array_file.h"

namespace lockstep {
namespace {

struct ProbeOptions {
  bool gradients = false;
  int time = 0;
  Model::Options model;
};

at::Tensor LossOf(const at::Tensor& output, const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor log_probabilities = logits.defined() ? at::log_softmax(logits, -1) : at::log(output);
  return at::nll_loss(log_probabilities, labels);
}

class Probe {
 public:
  Probe(const ProbeOptions& options, const std::string& folder) : options_(options), folder_(folder) {}

  absl::Status Run() {
    ASSIGN_OR_RETURN(archive_, KerasArchive::Open(folder_ + "/model.keras"));
    ASSIGN_OR_RETURN(model_, Model::Load(*archive_, options_.model));
    ASSIGN_OR_RETURN(const ArrayFile in, ArrayFile::OpenToRead(folder_ + "/inputs.h5"));
    ASSIGN_OR_RETURN(ArrayFile out, ArrayFile::Create(folder_ + (options_.time > 0 ? "/unused.h5" : "/outputs.h5")));
    ASSIGN_OR_RETURN(at::Tensor images, in.Read("images", options_.model.dtype));
    for (size_t i = 0; i < model_->variables().size(); ++i) {
      ASSIGN_OR_RETURN(at::Tensor value, model_->InitialValue(*archive_, static_cast<int>(i)));
      if (options_.gradients && model_->variables()[i].trainable) value.set_requires_grad(true);
      variables_.push_back(std::move(value));
    }
    if (options_.time > 0) return Time(images, in);
    return options_.gradients ? Train(images, in, out) : Infer(images, out);
  }

 private:
  absl::Status Infer(const at::Tensor& images, ArrayFile& out) {
    const c10::InferenceMode inference;
    ForwardContext context;
    const at::Tensor output = model_->Forward(images, variables_, context);
    RETURN_IF_ERROR(out.Write("output", output));
    return context.logits.defined() ? out.Write("logits", context.logits) : absl::OkStatus();
  }

  absl::Status Train(at::Tensor images, const ArrayFile& in, ArrayFile& out) {
    images.set_requires_grad(true);
    ForwardContext context;
    context.training = true;
    const at::Tensor output = model_->Forward(images, variables_, context);
    at::Tensor loss;
    if (in.Has("labels")) {
      ASSIGN_OR_RETURN(const at::Tensor labels, in.Read("labels", at::kLong));
      loss = LossOf(output, context.logits, labels);
    } else {
      ASSIGN_OR_RETURN(const at::Tensor cotangent, in.Read("cotangent", options_.model.dtype));
      loss = (output * cotangent).sum();
    }
    torch::autograd::backward({loss}, {});
    RETURN_IF_ERROR(out.Write("output", output));
    if (context.logits.defined()) RETURN_IF_ERROR(out.Write("logits", context.logits));
    RETURN_IF_ERROR(out.Write("loss", loss));
    if (images.grad().defined()) RETURN_IF_ERROR(out.Write("input_gradient", images.grad()));
    return WriteVariables(context, out);
  }

  absl::Status Time(const at::Tensor& images, const ArrayFile& in) {
    ASSIGN_OR_RETURN(const at::Tensor labels, in.Read("labels", at::kLong));
    for (size_t i = 0; i < variables_.size(); ++i) variables_[i].set_requires_grad(model_->variables()[i].trainable);
    double best_forward = 1e9, best = 1e9;
    for (int i = 0; i < options_.time; ++i) {
      const absl::Time start = absl::Now();
      ForwardContext context;
      context.training = true;
      at::Tensor output = model_->Forward(images, variables_, context);
      const at::Tensor loss = LossOf(output, context.logits, labels);
      output.reset();
      context.logits.reset();
      best_forward = std::min(best_forward, absl::ToDoubleSeconds(absl::Now() - start));
      torch::autograd::backward({loss}, {});
      best = std::min(best, absl::ToDoubleSeconds(absl::Now() - start));
      for (at::Tensor& variable : variables_) variable.mutable_grad().reset();
    }
    std::printf("%s: forward %.1f ms, step %.1f ms, %.1f images/s on one thread\n", folder_.c_str(), best_forward * 1e3, best * 1e3,
                static_cast<double>(images.size(0)) / best);
    return absl::OkStatus();
  }

  absl::Status WriteVariables(const ForwardContext& context, ArrayFile& out) {
    for (const StatisticUpdate& update : context.statistics) {
      at::Tensor& moving = variables_[static_cast<size_t>(update.variable)];
      moving = moving * update.momentum + update.batch_value * (1 - update.momentum);
    }
    for (size_t i = 0; i < variables_.size(); ++i) {
      const VariableInfo& info = model_->variables()[i];
      if (info.statistic) RETURN_IF_ERROR(out.Write("moving/" + info.hdf5_path, variables_[i]));
      const at::Tensor gradient = variables_[i].grad();
      if (!gradient.defined()) continue;
      RETURN_IF_ERROR(out.Write("gradients/" + info.hdf5_path, model_->ToKeras(static_cast<int>(i), gradient.contiguous())));
    }
    return absl::OkStatus();
  }

  const ProbeOptions& options_;
  const std::string folder_;
  std::unique_ptr<KerasArchive> archive_;
  std::unique_ptr<Model> model_;
  std::vector<at::Tensor> variables_;
};

absl::Status RunProbe(const ProbeOptions& options, const std::string& folder) {
  try {
    return Probe(options, folder).Run();
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  }
}

}  // namespace
}  // namespace lockstep

int main(int argc, char** argv) {
  at::set_num_threads(1);
  lockstep::memory::CpuTensorPool();  // the trainer's allocator
  lockstep::ProbeOptions options;
  std::vector<std::string> folders;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--gradients") {
      options.gradients = true;
    } else if (argument == "--float64") {
      options.model.dtype = at::kDouble;
    } else if (argument == "--time" && i + 1 < argc) {
      options.time = std::max(std::atoi(argv[++i]), 1);
    } else if (argument == "--plain") {
      options.model.fuse = false;
    } else {
      folders.push_back(argument);
    }
  }
  int failed = 0;
  for (const std::string& folder : folders) {
    const absl::Status status = lockstep::RunProbe(options, folder);
    if (status.ok()) continue;
    std::fprintf(stderr, "%s: %s\n", folder.c_str(), std::string(status.message()).c_str());
    failed = 1;
  }
  return failed;
}
