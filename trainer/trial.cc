#include "trainer/trial.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "model/training/loss.h"
#include "trainer/replica.h"

namespace lockstep {
namespace {

using memory::Category;

// Forward, and backward if `trains`, over one micro-batch.
template <typename T>
void RunOnce(const RunSpec& spec, const Model& model, const Loss& loss, const Replica<T>& replica, bool trains) {
  const memory::ScopedCategory category(Category::kActivations);
  const c10::ScalarType type = model.dtype();
  const at::Tensor images =
      at::zeros({spec.micro_batch, spec.image.height, spec.image.width, model.input_shape().back()}, at::TensorOptions().dtype(type));
  const at::Tensor labels = at::zeros({spec.micro_batch}, at::TensorOptions().dtype(at::kLong));
  const std::vector<at::Tensor> variables = replica.Aliases(trains);
  ForwardContext context;
  context.training = trains;
  context.seed = spec.seed;
  if (!trains) {
    const at::NoGradGuard no_grad;
    model.Forward(images, variables, context);
    return;
  }
  at::Tensor output = model.Forward(images, variables, context);
  const at::Tensor total = loss.PerSample(output, context.logits, labels).sum();
  output.reset();
  context.logits.reset();
  torch::autograd::backward({total}, {});
}

template <typename T>
absl::StatusOr<TrialFigures> Run(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe) {
  memory::BlockPool& pool = memory::CpuTensorPool();
  const int64_t before = pool.GetUsage().live.Total() - pool.GetUsage().live[Category::kAllocatorSlack];
  ASSIGN_OR_RETURN(const std::unique_ptr<Replica<T>> replica, Replica<T>::Create(*loaded.model, *loaded.archive, recipe));
  const bool trains = spec.kind == JobKind::kFit;
  const int64_t state = pool.GetUsage().live.Total() - pool.GetUsage().live[Category::kAllocatorSlack];
  pool.ResetPeak();
  if (spec.memory_limit > 0) pool.SetLimit(std::max<int64_t>(before + spec.memory_limit, 1));
  RunOnce<T>(spec, *loaded.model, Loss(recipe.loss), *replica, trains);
  pool.SetLimit(0);
  const memory::BlockPool::Usage usage = pool.GetUsage();
  TrialFigures figures;
  figures.at_peak = usage.at_peak;
  figures.at_peak[Category::kAllocatorSlack] = 0;
  // The sums of one trainer: the subtree that peers read, and one buffer for the leaf at hand.
  const int64_t gradients = trains ? 2 * static_cast<int64_t>(replica->gradient_layout().layout.bytes()) : 0;
  figures.at_peak[Category::kGradients] += gradients;
  const int64_t copies = spec.keeps_checkpoints() ? static_cast<int64_t>(replica->StateBytes()) : 0;
  figures.at_peak[Category::kCheckpointCopies] += copies;
  figures.fixed_bytes = state - before + gradients + copies;
  figures.bytes_per_thread = usage.peak_bytes - state;
  return figures;
}

}  // namespace

absl::StatusOr<TrialFigures> RunTrial(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe) {
  try {
    return loaded.model->dtype() == at::kDouble ? Run<double>(spec, loaded, recipe) : Run<float>(spec, loaded, recipe);
  } catch (const c10::OutOfMemoryError& error) {
    memory::CpuTensorPool().SetLimit(0);
    return absl::ResourceExhaustedError(
        absl::StrCat("one virtual replica of ", spec.micro_batch, " samples does not fit: ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    memory::CpuTensorPool().SetLimit(0);
    return absl::InvalidArgumentError(absl::StrCat("model ", spec.model_file, " cannot take a step on pictures of ", spec.image.height, "x",
                                                   spec.image.width, ": ", error.what_without_backtrace()));
  }
}

}  // namespace lockstep
