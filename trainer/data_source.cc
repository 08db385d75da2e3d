#include "trainer/data_source.h"

#include <utility>

#include "base/status_macros.h"

namespace lockstep {

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
                                                                            const dataset::Sampler& sampler, uint64_t first_epoch,
                                                                            int64_t first_step) const {
  dataset::PipelineOptions options;
  options.image = ToImageOptions(spec_, channels_);
  options.first_virtual_replica = spec_.my_run().begin;
  options.virtual_replica_count = spec_.my_run().size();
  options.threads = spec_.decode_threads > 0 ? spec_.decode_threads : spec_.threads;
  options.first_epoch = first_epoch;
  options.first_step = first_step;
  options.one_pass = &index == validation_.get() || spec_.kind != JobKind::kFit;
  // While the validation's pipeline runs, the training's is full and waits: each has half.
  options.memory_bytes = has_validation() ? spec_.pipeline_bytes / 2 : spec_.pipeline_bytes;
  return dataset::Pipeline::Create(options, index, folder, sampler);
}

absl::StatusOr<std::unique_ptr<dataset::Pipeline>> DataSource::TrainPipeline(uint64_t first_epoch, int64_t first_step) const {
  return MakePipeline(*train_, spec_.train_folder, *train_sampler_, first_epoch, first_step);
}

absl::StatusOr<std::unique_ptr<dataset::Pipeline>> DataSource::ValidationPipeline() const {
  return MakePipeline(*validation_, spec_.validation_folder, *validation_sampler_, 0, 0);
}

}  // namespace lockstep
