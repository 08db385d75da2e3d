#include "trainer/data_source.h"

#include <algorithm>
#include <utility>

#include "base/status_macros.h"

namespace lockstep {
namespace {

constexpr int64_t kStepsAhead = 3;

}  // namespace

dataset::ImageOptions ToImageOptions(const RunSpec& spec, int channels) {
  dataset::ImageOptions options;
  options.height = spec.image.height;
  options.width = spec.image.width;
  options.channels = channels;
  options.method = dataset::ParseMethod(spec.image.method).value_or(dataset::Method::kBilinear);
  options.antialias = spec.image.antialias;
  options.scale = spec.image.scale.value_or(1.0);
  options.mean = spec.image.mean;
  options.std = spec.image.std;
  options.full_decode = spec.image.full_decode;
  return options;
}

// More than this would only lie there: training takes one step's batches at a time, and decoding is the faster of the two.
int64_t DataSource::UsefulBytes(const dataset::PipelineOptions& options, const dataset::Sampler& sampler) const {
  const int64_t samples = int64_t{spec_.batch} / spec_.virtual_replicas * options.virtual_replica_count;
  const int64_t picture = int64_t{options.image.height} * options.image.width * channels_ * static_cast<int64_t>(sizeof(float));
  return dataset::MinimumBytes(options, sampler) * options.threads + kStepsAhead * samples * picture;
}

absl::StatusOr<std::unique_ptr<DataSource>> DataSource::Open(const RunSpec& spec, int channels, const std::string& train_index,
                                                             const std::string& validation_index) {
  std::unique_ptr<DataSource> source(new DataSource(spec, channels));
  dataset::SamplerOptions sampling;
  sampling.batch = spec.batch;
  sampling.virtual_replicas = spec.virtual_replicas;
  sampling.seed = spec.seed;
  ASSIGN_OR_RETURN(source->train_, dataset::Index::Open(train_index));
  sampling.num_samples = source->train_->size();
  sampling.shuffle = spec.shuffle && spec.kind == JobKind::kFit;
  sampling.drop_last = spec.drop_last && spec.kind == JobKind::kFit;
  ASSIGN_OR_RETURN(source->train_sampler_, dataset::Sampler::Create(sampling));
  if (validation_index.empty()) return source;
  ASSIGN_OR_RETURN(source->validation_, dataset::Index::Open(validation_index));
  sampling.num_samples = source->validation_->size();
  sampling.shuffle = false;
  sampling.drop_last = false;
  ASSIGN_OR_RETURN(source->validation_sampler_, dataset::Sampler::Create(sampling));
  return source;
}

uint64_t DataSource::validation_steps() const { return static_cast<uint64_t>(validation_sampler_->StepsPerEpoch()); }

absl::StatusOr<std::unique_ptr<dataset::Pipeline>> DataSource::MakePipeline(const dataset::Index& index, const std::string& folder,
                                                                            const dataset::Sampler& sampler) const {
  dataset::PipelineOptions options;
  options.image = ToImageOptions(spec_, channels_);
  options.first_virtual_replica = spec_.my_run().begin;
  options.virtual_replica_count = spec_.my_run().size();
  options.threads = spec_.decode_threads > 0 ? spec_.decode_threads : spec_.threads;
  options.one_pass = &index == validation_.get() || spec_.kind != JobKind::kFit;
  // While the validation's pipeline runs, the training's is full and waits: each has half.
  const int64_t budget = has_validation() ? spec_.pipeline_bytes / 2 : spec_.pipeline_bytes;
  options.memory_bytes = std::min(budget, UsefulBytes(options, sampler));
  return dataset::Pipeline::Create(options, index, folder, sampler);
}

absl::StatusOr<std::unique_ptr<dataset::Pipeline>> DataSource::TrainPipeline() const {
  return MakePipeline(*train_, spec_.train_folder, *train_sampler_);
}

absl::StatusOr<std::unique_ptr<dataset::Pipeline>> DataSource::ValidationPipeline() const {
  return MakePipeline(*validation_, spec_.validation_folder, *validation_sampler_);
}

}  // namespace lockstep
