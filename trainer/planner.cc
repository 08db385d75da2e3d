#include "trainer/planner.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/util/Exception.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "dataset/image.h"
#include "dataset/index.h"
#include "dataset/pipeline.h"
#include "dataset/pipeline_forecast.h"
#include "dataset/sampler.h"
#include "memory/cpu_allocator.h"
#include "trainer/callbacks.h"
#include "trainer/cuda_fit.h"
#include "trainer/data_source.h"
#include "trainer/loaded_model.h"
#include "trainer/memory_fit.h"
#include "trainer/process_figures.h"
#include "trainer/trial.h"
#include "trainer/verdict.h"

namespace lockstep {
namespace {

constexpr uint64_t kDefaultCheckpointSeconds = 600;
constexpr int kDefaultCheckpointsKept = 2;
constexpr int kDefaultVirtualReplicas = 8;
constexpr int kFewestSamplesEach = 4;
constexpr int64_t kDefaultPipelineBytes = 256 << 20;
constexpr int64_t kIndexBuildBytes = 64 << 20;

// V: 8, halved until it divides the batch with at least 4 samples each.
int DefaultVirtualReplicas(int batch) {
  int replicas = kDefaultVirtualReplicas;
  while (replicas > 1 && (batch % replicas != 0 || batch / replicas < kFewestSamplesEach)) replicas /= 2;
  return replicas;
}

// Before there are tensors: relocated tables, static data, stacks.
int64_t DataOfThisProcess() {
  const ResidentBytes resident = GetResidentBytes();
  const HeapBytes heap = GetHeapBytes(memory::CpuTensorPool().region());
  return std::max<int64_t>(resident.total - resident.file - resident.shared_memory - heap.in_use - heap.free, 0);
}

int64_t RuntimeOfThisProcess(int64_t data_bytes) { return GetResidentBytes().file + data_bytes + GetHeapBytes().in_use; }

class Planner {
 public:
  Planner(const RunSpec& spec, const RunFiles& files, RuntimeBytes runtime_bytes) : files_(files), runtime_bytes_(runtime_bytes) {
    out_.resolved = spec;
  }

  PlanOutcome Run() {
    CheckJob();
    OpenModel();
    BuildIndexes();
    if (out_.errors.empty()) ResolveImage();
    if (out_.errors.empty()) ReadRecipe();
    if (out_.errors.empty()) CountSteps();
    if (out_.errors.empty()) MeasureMemory();
    return std::move(out_);
  }

 private:
  // Each line of a message with several is an error of its own.
  void Refuse(const absl::Status& status, absl::string_view what) {
    for (absl::string_view line : absl::StrSplit(status.message(), '\n', absl::SkipEmpty())) {
      out_.errors.push_back(what.empty() ? std::string(line) : absl::StrCat(what, ": ", line));
    }
    out_.failure = Ending::kBadInput;
  }

  void CheckJob() {
    RunSpec& spec = out_.resolved;
    if (spec.virtual_replicas == 0) spec.virtual_replicas = DefaultVirtualReplicas(spec.batch);
    if (spec.batch % spec.virtual_replicas != 0) {
      Refuse(absl::InvalidArgumentError(
                 absl::StrCat("virtual_replicas: ", spec.virtual_replicas, " does not divide the batch of ", spec.batch)),
             "");
    } else if (spec.micro_batch == 0) {
      spec.micro_batch = spec.batch / spec.virtual_replicas;
    }
    spec.micro_batch = std::min(spec.micro_batch, std::max(spec.batch / spec.virtual_replicas, 1));
    if (spec.pipeline_bytes == 0) spec.pipeline_bytes = kDefaultPipelineBytes;
    if (spec.image.method.empty()) spec.image.method = "bilinear";
    if (!spec.never_checkpoint && spec.checkpoint_steps == 0 && spec.checkpoint_seconds == 0) {
      spec.checkpoint_seconds = kDefaultCheckpointSeconds;
    }
    if (spec.checkpoints_kept == 0) spec.checkpoints_kept = kDefaultCheckpointsKept;
    // It is not made here: where storage is not mounted, its place would fill instead.
    if (!spec.checkpoint_folder.empty() && access(absl::StrCat(spec.checkpoint_folder, "/.").c_str(), W_OK | X_OK) != 0) {
      Refuse(ErrnoStatus(errno, "checkpoint.folder: the worker that plans cannot write to", spec.checkpoint_folder), "");
    }
    if (!dataset::ParseMethod(spec.image.method)) {
      Refuse(absl::InvalidArgumentError(
                 absl::StrCat("data.image.method: \"", spec.image.method, "\" is none of nearest, bilinear, bicubic, area")),
             "");
    }
  }

  void OpenModel() {
    absl::StatusOr<LoadedModel> loaded = LoadModel(files_.model, out_.resolved.precision);
    if (!loaded.ok()) return Refuse(loaded.status(), absl::StrCat("model ", out_.resolved.model_file));
    loaded_ = std::move(*loaded);
    out_.resolved.precision = loaded_->model->dtype() == at::kDouble ? "float64" : "float32";
    const std::vector<int64_t>& shape = loaded_->model->input_shape();
    if (shape.size() != 3 || (shape[2] != 1 && shape[2] != 3)) {
      Refuse(absl::InvalidArgumentError("its input is not one picture (height, width, 1 or 3 channels)"),
             absl::StrCat("model ", out_.resolved.model_file));
    }
  }

  void BuildIndexes() {
    const RunSpec& spec = out_.resolved;
    dataset::IndexOptions options;
    options.memory_bytes = kIndexBuildBytes;
    options.require_classes = spec.kind != JobKind::kPredict;
    const char* field = spec.kind == JobKind::kFit ? "data.train" : "data";
    const auto train = dataset::BuildIndex(spec.train_folder, files_.train_index, options);
    if (!train.ok()) {
      Refuse(train.status(), field);
    } else {
      out_.train_samples = static_cast<uint64_t>(train->samples);
      for (const std::string& note : train->notes) out_.notes.push_back(absl::StrCat(field, ": ", note));
      const auto index = dataset::Index::Open(files_.train_index);
      if (!index.ok()) return Refuse(index.status(), field);
      classes_.assign((*index)->class_names().begin(), (*index)->class_names().end());
    }
    if (files_.validation_index.empty()) return;
    options.expected_classes = classes_;
    const auto validation = dataset::BuildIndex(spec.validation_folder, files_.validation_index, options);
    if (!validation.ok()) return Refuse(validation.status(), "data.validation");
    out_.validation_samples = static_cast<uint64_t>(validation->samples);
    for (const std::string& note : validation->notes) out_.notes.push_back(absl::StrCat("data.validation: ", note));
  }

  void ResolveImage() {
    ImageSpec& image = out_.resolved.image;
    const std::vector<int64_t>& shape = loaded_->model->input_shape();
    ResolveSide("height", shape[0], image.height);
    ResolveSide("width", shape[1], image.width);
    for (const auto* values : {&image.mean, &image.std}) {
      if (!values->empty() && values->size() != 1 && static_cast<int64_t>(values->size()) != shape[2]) {
        Refuse(absl::InvalidArgumentError(absl::StrCat("data.image.", values == &image.mean ? "mean" : "std", ": ", values->size(),
                                                       " values for ", shape[2], " channels; give 1 or ", shape[2])),
               "");
      }
    }
    if (std::any_of(image.std.begin(), image.std.end(), [](double value) { return value == 0; })) {
      Refuse(absl::InvalidArgumentError("data.image.std: 0 cannot be divided by"), "");
    }
    if (!image.scale) {
      image.scale = loaded_->model->rescales_input() ? 1.0 : 1.0 / 255;
      out_.notes.push_back(loaded_->model->rescales_input() ? "scale 1: the graph rescales its input itself"
                                                            : "scale 1/255: the graph does not rescale its input itself");
    }
  }

  void ResolveSide(const char* name, int64_t model, int& side) {
    if (side == 0 && model > 0) side = static_cast<int>(model);
    if (side == 0) {
      Refuse(absl::InvalidArgumentError(absl::StrCat("data.image.size: the model takes pictures of any ", name, "; give one")), "");
    } else if (model > 0 && side != model) {
      Refuse(absl::InvalidArgumentError(absl::StrCat("data.image.size: the ", name, " is ", side, ", the model's input is ", model)), "");
    }
  }

  void ReadRecipe() {
    absl::StatusOr<Recipe> recipe = ReadJobRecipe(out_.resolved, *loaded_, static_cast<int64_t>(classes_.size()));
    if (!recipe.ok()) return Refuse(recipe.status(), absl::StrCat("model ", out_.resolved.model_file));
    recipe_ = std::move(*recipe);
    if (out_.resolved.kind != JobKind::kFit) return;  // the rest is about training
    for (const std::string& note : recipe_.notes) out_.notes.push_back(note);
    if (recipe_.jit_compile) out_.notes.emplace_back("jit_compile: steps are not compiled yet; the numbers are the same");
    const auto callbacks = MakeCallbacks(out_.resolved, recipe_, !files_.validation_index.empty());
    if (!callbacks.ok()) Refuse(callbacks.status(), "");
  }

  void CountSteps() {
    const RunSpec& spec = out_.resolved;
    dataset::SamplerOptions sampling;
    sampling.num_samples = static_cast<int64_t>(out_.train_samples);
    sampling.batch = spec.batch;
    sampling.virtual_replicas = spec.virtual_replicas;
    sampling.seed = spec.seed;
    sampling.drop_last = spec.drop_last && spec.kind == JobKind::kFit;
    auto sampler = dataset::Sampler::Create(sampling);
    if (!sampler.ok()) return Refuse(sampler.status(), "");
    sampler_ = *std::move(sampler);
    const int64_t most = MostSamplesInVerdict(sampling.num_samples, spec.virtual_replicas);
    if (spec.kind == JobKind::kFit && spec.batch > most) {
      Refuse(absl::InvalidArgumentError(absl::StrCat("batch: ", spec.batch, " is above ", most,
                                                     ", the most samples that the record of a step can name, of ", out_.train_samples,
                                                     " with ", spec.virtual_replicas, " virtual replicas")),
             "");
    }
    const auto per_epoch = static_cast<uint64_t>(sampler_->StepsPerEpoch());
    if (per_epoch == 0) {
      return Refuse(absl::InvalidArgumentError(absl::StrCat("batch: ", spec.batch, " is more than the ", out_.train_samples,
                                                            " pictures, and data.last_batch is drop: there is no step")),
                    "");
    }
    out_.total_steps = spec.kind != JobKind::kFit ? per_epoch : spec.steps > 0 ? spec.steps : per_epoch * spec.epochs;
  }

  void MeasureMemory() {
    RunSpec& spec = out_.resolved;
    spec.threads = spec.device == Device::kCuda ? 1 : std::max(1, std::min(spec.threads, spec.virtual_replicas));
    const absl::StatusOr<std::unique_ptr<Trial>> trial = Trial::Create(spec, *loaded_, recipe_);
    if (!trial.ok()) return RefuseMemory(trial.status());
    loaded_->archive.reset();  // it holds the file's weights
    const CallGraph& graph = loaded_->model->call_graph();
    if (spec.device == Device::kCuda) {
      // Which device it will be is not known.
      Report(CudaFit(spec, **trial, graph, runtime_bytes_, PictureBytes() + static_cast<int64_t>(sizeof(int64_t)),
                     memory::CudaConstantsOf(0)));
    } else {
      Report(MemoryFit(spec, **trial, graph,
                       {runtime_bytes_, PipelineBytesPerSample(), LeastPipelineBytes(), out_.total_steps, PipelineForecast()}));
    }
  }

  template <typename Fit>
  void Report(Fit fit) {
    const absl::Status status = fit.Run();
    out_.profile = fit.profile();
    if (!status.ok()) return RefuseMemory(status);
    for (const std::string& note : fit.notes()) out_.notes.push_back(note);
  }

  int64_t PictureBytes() const {
    const ImageSpec& image = out_.resolved.image;
    return int64_t{image.height} * image.width * loaded_->model->input_shape().back() * static_cast<int64_t>(sizeof(float));
  }

  int64_t PipelineBytesPerSample() const { return files_.validation_index.empty() ? PictureBytes() : 2 * PictureBytes(); }

  dataset::PipelineOptions TrainPipeline() const {
    const RunSpec& spec = out_.resolved;
    dataset::PipelineOptions options;
    options.image = ToImageOptions(spec, static_cast<int>(loaded_->model->input_shape().back()));
    options.virtual_replica_count = spec.virtual_replicas;
    options.one_pass = spec.kind != JobKind::kFit;
    return options;
  }

  // As of each of the most trainers that the job may have.
  std::function<int64_t(int64_t, int, double)> PipelineForecast() const {
    dataset::PipelineOptions options = TrainPipeline();
    const auto index = dataset::Index::Open(files_.train_index);
    dataset::PictureCosts picture;
    if (index.ok()) picture = dataset::MeasurePictures(options.image, **index, out_.resolved.train_folder);
    const int replicas = std::max(out_.resolved.most_replicas, 1);
    options.virtual_replica_count = (options.virtual_replica_count + replicas - 1) / replicas;
    return [this, options, picture](int64_t budget, int threads, double seconds_per_sample) mutable {
      const bool validates = !files_.validation_index.empty();
      options.threads = out_.resolved.decode_threads > 0 ? out_.resolved.decode_threads : threads;
      options.memory_bytes = validates ? budget / 2 : budget;
      const int64_t one = dataset::ForecastBytes(options, *sampler_, picture, {threads, seconds_per_sample});
      return validates ? 2 * one : one;
    };
  }

  int64_t LeastPipelineBytes() const {
    const dataset::PipelineOptions options = TrainPipeline();
    const int64_t least = dataset::MinimumBytes(options, *sampler_);
    // Training and validation have half each.
    return files_.validation_index.empty() ? least : 2 * least;
  }

  void RefuseMemory(const absl::Status& status) {
    Refuse(status, status.code() == absl::StatusCode::kResourceExhausted ? "memory.limit" : "");
    out_.failure = status.code() == absl::StatusCode::kResourceExhausted ? Ending::kOutOfMemory : Ending::kBadInput;
  }

  const RunFiles& files_;
  const RuntimeBytes runtime_bytes_;
  PlanOutcome out_;
  std::optional<LoadedModel> loaded_;
  std::vector<std::string> classes_;
  std::unique_ptr<dataset::Sampler> sampler_;
  Recipe recipe_;
};

}  // namespace

PlanOutcome PlanJob(const RunSpec& spec, const RunFiles& files, RuntimeBytes runtime_bytes) {
  at::set_num_threads(1);
  try {
    return Planner(
               spec, files, runtime_bytes ? runtime_bytes : [data = DataOfThisProcess()] { return RuntimeOfThisProcess(data); })
        .Run();
  } catch (const c10::Error& error) {
    PlanOutcome outcome;
    outcome.failure = Ending::kBadInput;
    outcome.errors.push_back(absl::StrCat("model ", spec.model_file, ": ", error.what_without_backtrace()));
    return outcome;
  }
}

}  // namespace lockstep
