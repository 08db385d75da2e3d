#include "trainer/trial.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "memory/cpu_allocator.h"
#include "model/training/loss.h"
#include "trainer/kernels_of_many.h"
#include "trainer/leaf_runner.h"
#include "trainer/replica.h"
#include "trainer/thread_team.h"

namespace lockstep {
namespace {

using memory::Category;

// Two micro-batches that say what others take, and one that checks it: a few samples, and, where those cannot be given the kernels of many,
// many.
using Points = std::array<int64_t, 3>;
constexpr Points kFew = {2, 3, 5};
constexpr Points kMany = {kManySamples, kManySamples + 1, kManySamples + 3};
// What planning takes beside its recordings, about.
constexpr int64_t kBesideRecordings = 512 << 20;

int64_t LiveBytes() {
  const memory::BlockPool::Usage usage = memory::CpuTensorPool().GetUsage();
  return usage.live.Total() - usage.live[Category::kAllocatorSlack];
}

// Of the state, in the order in which they were asked for.
std::vector<std::pair<Category, int64_t>> HeldBlocks(const memory::Trace& trace) {
  std::vector<std::pair<Category, int64_t>> asked;
  std::vector<bool> held;
  for (const memory::Trace::Event& event : trace.events) {
    if (event.release) {
      held[static_cast<size_t>(event.block)] = false;
    } else {
      asked.emplace_back(event.category, event.bytes);
      held.push_back(event.category == Category::kParameters || event.category == Category::kOptimizer);
    }
  }
  std::vector<std::pair<Category, int64_t>> blocks;
  for (size_t i = 0; i < asked.size(); ++i) {
    if (held[i]) blocks.push_back(asked[i]);
  }
  return blocks;
}

// Made-up pictures, which are no memory until somebody writes to them.
class Blank {
 public:
  explicit Blank(size_t bytes)
      : bytes_(bytes), address_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (address_ == MAP_FAILED) throw std::bad_alloc();
  }
  ~Blank() { munmap(address_, bytes_); }
  Blank(const Blank&) = delete;
  Blank& operator=(const Blank&) = delete;
  void* get() const { return address_; }

 private:
  const size_t bytes_;
  void* const address_;
};

// What is thrown out of libtorch ends here.
template <typename Result>
absl::StatusOr<Result> Guard(const RunSpec& spec, const std::function<absl::StatusOr<Result>()>& work) {
  try {
    return work();
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(absl::StrCat("this machine cannot take a step of a few samples: ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return absl::InvalidArgumentError(absl::StrCat("model ", spec.model_file, " cannot take a step on pictures of ", spec.image.height, "x",
                                                   spec.image.width, ": ", error.what_without_backtrace()));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("this machine cannot take a step of a few samples: out of memory outside of tensors");
  }
}

}  // namespace

template <typename T>
class TrialOf final : public Trial {
 public:
  TrialOf(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe, std::unique_ptr<Replica<T>> replica)
      : spec_(spec),
        model_(*loaded.model),
        loss_(recipe.loss),
        metrics_(recipe.metrics.begin(), recipe.metrics.end()),
        channels_(model_.input_shape().back()),
        replica_(std::move(replica)) {}

  static absl::StatusOr<std::unique_ptr<Trial>> Create(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe) {
    const memory::Bytes before = memory::CpuTensorPool().GetUsage().live;
    memory::Recording recording;
    ASSIGN_OR_RETURN(std::unique_ptr<Replica<T>> replica, Replica<T>::Create(*loaded.model, *loaded.archive, recipe, /*blank=*/true));
    const memory::Bytes after = memory::CpuTensorPool().GetUsage().live;
    auto trial = std::make_unique<TrialOf>(spec, loaded, recipe, std::move(replica));
    for (const Category category : {Category::kParameters, Category::kOptimizer}) {
      trial->state_[category] = after[category] - before[category];
    }
    trial->state_blocks_ = HeldBlocks(recording.Take());
    return trial;
  }

  const allreduce::Layout& gradients() const override { return replica_->gradient_layout().layout; }
  int64_t state_bytes() const override { return static_cast<int64_t>(replica_->StateBytes()); }

  int64_t largest_variable_bytes() const override {
    int64_t largest = 0;
    for (const VariableInfo& variable : model_.variables()) {
      int64_t count = 1;
      for (const int64_t extent : variable.run_shape) count *= extent;
      largest = std::max(largest, count * static_cast<int64_t>(sizeof(T)));
    }
    return largest;
  }

  absl::StatusOr<RecordedPass> Record(absl::Span<const Segment> recomputed) override {
    return Guard<RecordedPass>(spec_, [&]() -> absl::StatusOr<RecordedPass> {
      RecordedPass pass;
      absl::Status extended = Extend(recomputed, kFew, pass);
      if (absl::IsFailedPrecondition(extended) && RecordedPass::RegimeOf(spec_.device, spec_.micro_batch).last == 0) {
        extended = Extend(recomputed, kMany, pass);
      }
      if (extended.ok()) return pass;
      // Another sequence in each step: it is measured as it is.
      const bool single = spec_.micro_batch < kFew.front();
      pass.method_ = single ? "a step of one sample, recorded" : absl::StrCat("measured with all samples: ", extended.message());
      const std::unique_ptr<LeafRunner<T>> runner = MakeRunner(recomputed);
      Step(*runner, 1, nullptr);
      const absl::Time start = absl::Now();
      pass.regime_ = {spec_.micro_batch, spec_.micro_batch};
      pass.measured_ = RecordOne(*runner, spec_.micro_batch, pass.marks_);
      pass.seconds_per_sample_ = SecondsPerSample(start, spec_.micro_batch);
      return pass;
    });
  }

  absl::StatusOr<Measured> Measure(absl::Span<const Segment> recomputed) override {
    return Guard<Measured>(spec_, [&]() -> absl::StatusOr<Measured> {
      const std::unique_ptr<LeafRunner<T>> runner = MakeRunner(recomputed);
      Step(*runner, 1, nullptr);
      Step(*runner, spec_.micro_batch, nullptr);
      const int64_t before = LiveBytes();
      memory::CpuTensorPool().ResetPeak();
      Measured measured;
      const absl::Time start = absl::Now();
      Step(*runner, spec_.micro_batch, nullptr);
      measured.seconds = absl::ToDoubleSeconds(absl::Now() - start);
      measured.bytes = memory::CpuTensorPool().GetUsage().peak_bytes - before;
      return measured;
    });
  }

 private:
  // A virtual replica of several micro-batches keeps the gradients of the first until the last.
  int64_t MicroBatches() const { return spec_.kind == JobKind::kFit && spec_.micro_batch * spec_.virtual_replicas < spec_.batch ? 2 : 1; }

  std::unique_ptr<LeafRunner<T>> MakeRunner(absl::Span<const Segment> recomputed) const {
    return std::make_unique<LeafRunner<T>>(
        LeafContext{model_, loss_, metrics_, replica_->gradient_layout(), spec_.seed, 0, replica_->optimizer().loss_scale(), recomputed},
        *replica_, /*sums=*/nullptr, spec_.kind == JobKind::kFit);
  }

  void Step(LeafRunner<T>& runner, int64_t samples, memory::PassMarks* marks) const {
    const int64_t all = samples * MicroBatches();
    const auto pixels = static_cast<size_t>(all * spec_.image.height * spec_.image.width * channels_);
    const Blank images(pixels * sizeof(float)), labels(static_cast<size_t>(all) * sizeof(int64_t));
    const at::Tensor pictures =
        at::from_blob(images.get(), {all, spec_.image.height, spec_.image.width, channels_}, at::TensorOptions().dtype(at::kFloat));
    const at::Tensor classes = at::from_blob(labels.get(), {all}, at::TensorOptions().dtype(at::kLong));
    if (spec_.kind == JobKind::kFit) {
      runner.TrainOn(pictures, classes, samples, marks);
    } else {
      runner.EvaluateOn(pictures, classes, spec_.kind == JobKind::kEvaluate);
    }
  }

  memory::Trace RecordOne(LeafRunner<T>& runner, int64_t samples, memory::PassMarks& marks) const {
    memory::Recording recording;
    Step(runner, samples, &marks);
    return recording.Take();
  }

  double SecondsPerSample(absl::Time start, int64_t samples) const {
    return absl::ToDoubleSeconds(absl::Now() - start) / static_cast<double>(samples * MicroBatches());
  }

  // Recordings [first, first + count), each on a thread of its own.
  static void SideBySide(size_t first, size_t count, const std::function<void(size_t recording)>& record) {
    std::vector<std::exception_ptr> thrown(count);
    ThreadTeam team(static_cast<int>(count), [](int) { at::set_num_threads(1); });
    team.Run([&](int thread) {
      try {
        record(first + static_cast<size_t>(thread));
      } catch (...) {
        thrown[static_cast<size_t>(thread)] = std::current_exception();
      }
    });
    for (const std::exception_ptr& one : thrown) {
      if (one) std::rethrow_exception(one);
    }
  }

  // Samples that may be recorded at once, so that planning does not take more than the job may.
  int64_t SamplesAtOnce() {
    if (spec_.process_limit() == 0) return std::numeric_limits<int64_t>::max();
    if (sample_bytes_ == 0) {
      SideBySide(0, 1, [&](size_t) {
        memory::PassMarks marks;
        sample_bytes_ = memory::PeakOf(RecordOne(*MakeRunner({}), 1, marks)).bytes;
      });
    }
    return (spec_.process_limit() - this->state_.Total() - kBesideRecordings) / std::max<int64_t>(sample_bytes_, 1);
  }

  // FailedPrecondition: there is nothing to go by.
  absl::Status Extend(absl::Span<const Segment> recomputed, const Points& points, RecordedPass& pass) {
    // A single sample is another regime, too.
    if (spec_.micro_batch < kFew.front()) return absl::FailedPreconditionError("a single sample");
    const RecordedPass::Regime regime = RecordedPass::RegimeOf(spec_.device, spec_.micro_batch);
    const bool as_many = regime.last == 0 && points.front() < kManySamples;
    // Where segments are computed twice the kernels are those of the pass without, which was checked.
    const size_t recordings = recomputed.empty() ? points.size() : 2;
    std::array<memory::Trace, kFew.size()> traces;
    std::array<memory::PassMarks, kFew.size()> marks;
    std::array<double, kFew.size()> seconds{};
    std::atomic<bool> all_taken = true;
    const auto record = [&](size_t i) {
      std::optional<ScopedKernelsOfMany> kernels;
      if (as_many) kernels.emplace();
      const std::unique_ptr<LeafRunner<T>> runner = MakeRunner(recomputed);
      const absl::Time start = absl::Now();
      traces[i] = RecordOne(*runner, points[i], marks[i]);
      seconds[i] = SecondsPerSample(start, points[i]);
      if (kernels && !kernels->all_taken()) all_taken = false;
    };
    const int64_t most = SamplesAtOnce();
    for (size_t done = 0; done < recordings;) {
      const size_t first = done;
      int64_t samples = points[done++];
      while (done < recordings && samples + points[done] <= most) samples += points[done++];
      SideBySide(first, done - first, record);
      if (!all_taken) return absl::FailedPreconditionError("a few samples cannot be given the kernels of many");
    }
    ASSIGN_OR_RETURN(memory::AffineTrace fit, memory::AffineTrace::Fit(traces[0], points[0], traces[1], points[1]));
    if (recordings > 2) RETURN_IF_ERROR(fit.Check(traces[2], points[2]));
    pass.regime_ = regime;
    for (size_t i = 0; i < recordings; ++i) marks[1].TakeLeastSeconds(points[1], marks[i], points[i]);
    pass.steps_ = std::move(fit);
    pass.marks_ = std::move(marks[1]);
    // Recordings side by side are in each other's way: the fastest was least so.
    pass.seconds_per_sample_ = *std::min_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(recordings));
    pass.method_ = absl::StrCat("steps of ", points[0], " and ", points[1], " samples, recorded",
                                as_many ? absl::StrCat(" with the kernels of ", kManySamples) : "",
                                recordings > 2 ? absl::StrCat(", and one of ", points[2], " to check") : "");
    return absl::OkStatus();
  }

  const RunSpec& spec_;
  const Model& model_;
  const Loss loss_;
  const std::vector<Metric> metrics_;
  const int64_t channels_;
  const std::unique_ptr<Replica<T>> replica_;
  int64_t sample_bytes_ = 0;  // of a pass over one without segments, about; 0: not known yet
};

memory::PassCosts RecordedPass::CostsAt(int64_t micro_batch, const CallGraph& graph) const {
  std::vector<memory::ValueLife> lives;
  for (const CallGraph::Value& value : graph.values) lives.push_back({value.made_by, value.first_use, value.last_use});
  std::vector<bool> may_cut, takes_output;
  for (const CallGraph::Call& call : graph.calls) takes_output.push_back(call.takes_output);
  for (int call = 0; call < static_cast<int>(graph.calls.size()); ++call) may_cut.push_back(graph.MayCut(call));
  return memory::CostsOf(At(micro_batch), marks_, lives, std::move(may_cut), takes_output);
}

int64_t RecordedPass::AboutWith(absl::Span<const Segment> segments, int64_t micro_batch, const CallGraph& graph) const {
  if (segments.empty()) return PeakAt(micro_batch).bytes;  // also of a pass without backward, which has no costs
  const memory::PassCosts costs = CostsAt(micro_batch, graph);
  return PeakAt(micro_batch).bytes - memory::CostOf(costs, {}).bytes + memory::CostOf(costs, {segments.begin(), segments.end()}).bytes;
}

const memory::Choice& RecordedPass::FewestBytesAt(int64_t micro_batch, const CallGraph& graph) const {
  const auto [at, added] = fewest_.try_emplace(micro_batch);
  if (added) at->second = memory::FewestBytes(CostsAt(micro_batch, graph));
  return at->second;
}

RecordedPass::Regime RecordedPass::RegimeOf(Device device, int64_t planned) {
  if (planned < kFew.front()) return {1, kFew.front() - 1};
  // cuDNN's convolutions know of no such border, and are like those of many samples.
  if (device == Device::kCuda) return {kFew.front(), 0};
  return planned < kManySamples ? Regime{kFew.front(), kManySamples - 1} : Regime{kManySamples, 0};
}

absl::StatusOr<std::unique_ptr<Trial>> Trial::Create(const RunSpec& spec, const LoadedModel& loaded, const Recipe& recipe) {
  return Guard<std::unique_ptr<Trial>>(spec, [&]() -> absl::StatusOr<std::unique_ptr<Trial>> {
    return loaded.model->dtype() == at::kDouble ? TrialOf<double>::Create(spec, loaded, recipe)
                                                : TrialOf<float>::Create(spec, loaded, recipe);
  });
}

}  // namespace lockstep
