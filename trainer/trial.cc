#include "trainer/trial.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <array>
#include <exception>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "memory/trace.h"
#include "model/training/loss.h"
#include "trainer/leaf_runner.h"
#include "trainer/replica.h"
#include "trainer/thread_team.h"

namespace lockstep {
namespace {

using memory::Category;

// From this many samples on ATen takes another path for 1×1 convolutions on one thread, so that the sequence of allocations changes.
constexpr int64_t kOtherRegime = 16;
// Two micro-batches that say what others take, and one that checks it.
constexpr std::array<int64_t, 3> kFew = {2, 3, 5};
constexpr std::array<int64_t, 3> kMany = {kOtherRegime, kOtherRegime + 1, kOtherRegime + 3};

// More than a picture of usual width shows.
constexpr size_t kTimelinePoints = 1000;

int64_t LiveBytes() {
  const memory::BlockPool::Usage usage = memory::CpuTensorPool().GetUsage();
  return usage.live.Total() - usage.live[Category::kAllocatorSlack];
}

// Made-up pictures, which are no memory until somebody writes to them.
class Blank {
 public:
  explicit Blank(size_t bytes)
      : bytes_(bytes), address_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Blank() {
    if (address_ != MAP_FAILED) munmap(address_, bytes_);
  }
  Blank(const Blank&) = delete;
  Blank& operator=(const Blank&) = delete;
  void* get() const { return address_ == MAP_FAILED ? nullptr : address_; }

 private:
  const size_t bytes_;
  void* const address_;
};

template <typename T>
class Trial {
 public:
  Trial(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe, const Replica<T>& replica)
      : spec_(spec),
        loss_(recipe.loss),
        metrics_(recipe.metrics.begin(), recipe.metrics.end()),
        channels_(loaded.model->input_shape().back()),
        runner_({*loaded.model, loss_, metrics_, replica.gradient_layout(), spec.seed, 0, replica.optimizer().loss_scale(),
                 spec.recompute.segments},
                replica,
                /*sums=*/nullptr, spec.kind == JobKind::kFit) {}

  memory::Trace Record(int64_t samples) {
    const auto pixels = static_cast<size_t>(samples * spec_.image.height * spec_.image.width * channels_);
    const Blank images(pixels * sizeof(float)), labels(static_cast<size_t>(samples) * sizeof(int64_t));
    if (images.get() == nullptr || labels.get() == nullptr) throw std::bad_alloc();
    memory::Recording recording;
    const at::Tensor pictures =
        at::from_blob(images.get(), {samples, spec_.image.height, spec_.image.width, channels_}, at::TensorOptions().dtype(at::kFloat));
    const at::Tensor classes = at::from_blob(labels.get(), {samples}, at::TensorOptions().dtype(at::kLong));
    if (spec_.kind == JobKind::kFit) {
      runner_.TrainOn(pictures, classes);
    } else {
      runner_.EvaluateOn(pictures, classes, spec_.kind == JobKind::kEvaluate);
    }
    return recording.Take();
  }

 private:
  const RunSpec& spec_;
  const Loss loss_;
  const std::vector<Metric> metrics_;
  const int64_t channels_;
  LeafRunner<T> runner_;
};

// Recorded side by side, each on a thread of its own. FailedPrecondition: there is nothing to go by.
template <typename T>
absl::StatusOr<memory::AffineTrace> Fit(const std::function<std::unique_ptr<Trial<T>>()>& make_trial, int64_t samples) {
  // A single sample is another regime, too.
  if (samples < kFew.front()) return absl::FailedPreconditionError("");
  const auto points = samples < kOtherRegime ? kFew : kMany;
  std::array<memory::Trace, 3> traces;
  std::array<std::exception_ptr, 3> thrown;
  ThreadTeam team(static_cast<int>(points.size()), [](int) { at::set_num_threads(1); });
  team.Run([&](int thread) {
    const auto i = static_cast<size_t>(thread);
    try {
      const std::unique_ptr<Trial<T>> trial = make_trial();
      // What is made once, at first use, is not a step's.
      trial->Record(1);
      traces[i] = trial->Record(points[i]);
    } catch (...) {
      thrown[i] = std::current_exception();
    }
  });
  for (const std::exception_ptr& one : thrown) {
    if (one) std::rethrow_exception(one);
  }
  ASSIGN_OR_RETURN(memory::AffineTrace fit, memory::AffineTrace::Fit(traces[0], points[0], traces[1], points[1]));
  RETURN_IF_ERROR(fit.Check(traces[2], points[2]));
  return fit;
}

template <typename T>
absl::StatusOr<TrialFigures> Run(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe) {
  const int64_t before = LiveBytes();
  ASSIGN_OR_RETURN(const std::unique_ptr<Replica<T>> replica, Replica<T>::Create(*loaded.model, *loaded.archive, recipe));
  TrialFigures figures;
  figures.at_peak = memory::CpuTensorPool().GetUsage().live;
  figures.at_peak[Category::kAllocatorSlack] = 0;
  figures.fixed_bytes = LiveBytes() - before;
  const auto make_trial = [&] { return std::make_unique<Trial<T>>(spec, loaded, recipe, *replica); };
  const absl::StatusOr<memory::AffineTrace> fit = Fit<T>(make_trial, spec.micro_batch);
  // Another sequence in each step: it is measured as it is.
  if (!fit.ok() && !fit.status().message().empty()) {
    figures.note = absl::StrCat("memory: measured with all samples: ", fit.status().message());
  }
  const auto record = [&] {
    const std::unique_ptr<Trial<T>> one = make_trial();
    one->Record(1);
    return one->Record(spec.micro_batch);
  };
  const memory::Trace step = fit.ok() ? fit->At(spec.micro_batch) : record();
  const memory::Peak peak = memory::PeakOf(step);
  figures.step_at_peak = peak.by_category;
  figures.timeline = memory::TimelineOf(step, kTimelinePoints);
  for (size_t i = 0; i < memory::kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    figures.at_peak[category] += peak.by_category[category];
  }
  if (fit.ok()) figures.steps = *fit;
  figures.bytes_per_thread = peak.bytes;
  figures.place = peak.place;
  // The sums of one trainer: the subtree that peers read, and one buffer for the leaf at hand.
  const int64_t gradients = spec.kind == JobKind::kFit ? 2 * static_cast<int64_t>(replica->gradient_layout().layout.bytes()) : 0;
  const int64_t copies = spec.keeps_checkpoints() ? static_cast<int64_t>(replica->StateBytes()) : 0;
  figures.at_peak[Category::kGradients] += gradients;
  figures.at_peak[Category::kCheckpointCopies] += copies;
  figures.fixed_bytes += gradients + copies;
  return figures;
}

template <typename T>
absl::StatusOr<int64_t> Measure(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Replica<T>> replica, Replica<T>::Create(*loaded.model, *loaded.archive, recipe));
  Trial<T> trial(spec, loaded, recipe, *replica);
  trial.Record(1);
  const int64_t before = LiveBytes();
  memory::CpuTensorPool().ResetPeak();
  trial.Record(spec.micro_batch);
  return memory::CpuTensorPool().GetUsage().peak_bytes - before;
}

}  // namespace

int64_t TrialFigures::LargestMicroBatch(int64_t planned, int64_t bytes) const {
  const int64_t below = planned < kOtherRegime ? kFew.front() - 1 : kOtherRegime - 1;
  int64_t fits = below;
  if (!steps) return 0;
  for (int64_t above = planned + 1; fits + 1 < above;) {
    const int64_t middle = fits + (above - fits) / 2;
    (memory::PeakOf(steps->At(middle)).bytes <= bytes ? fits : above) = middle;
  }
  return fits == below ? 0 : fits;
}

absl::StatusOr<int64_t> MeasureStep(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe) {
  try {
    return loaded.model->dtype() == at::kDouble ? Measure<double>(spec, loaded, recipe) : Measure<float>(spec, loaded, recipe);
  } catch (const c10::Error& error) {
    return absl::ResourceExhaustedError(error.what_without_backtrace());
  }
}

absl::StatusOr<TrialFigures> RunTrial(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe) {
  try {
    return loaded.model->dtype() == at::kDouble ? Run<double>(spec, loaded, recipe) : Run<float>(spec, loaded, recipe);
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(absl::StrCat("this machine cannot take a step of a few samples: ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat("model ", spec.model_file, " cannot take a step on pictures of ", spec.image.height, "x",
                                                   spec.image.width, ": ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("this machine cannot take a step of a few samples: out of memory outside of tensors");
  }
}

}  // namespace lockstep
