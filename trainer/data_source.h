#pragma once
// A job's data as this trainer reads it: the indexes, the samplers over them, and pipelines on demand. No libtorch.
// Thread-safe: const after Open.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "dataset/index.h"
#include "dataset/pipeline.h"
#include "dataset/sampler.h"
#include "trainer/run_spec.h"

namespace lockstep {

// How the pipelines decode and place pictures.
dataset::ImageOptions ToImageOptions(const RunSpec& spec, int channels);

class DataSource {
 public:
  // `validation_index` may be empty. DataLoss if an index is damaged.
  static absl::StatusOr<std::unique_ptr<DataSource>> Open(const RunSpec& spec, int channels, const std::string& train_index,
                                                          const std::string& validation_index);

  const dataset::Index& train() const { return *train_; }
  const dataset::Sampler& train_sampler() const { return *train_sampler_; }
  bool has_validation() const { return validation_ != nullptr; }
  const dataset::Index& validation() const { return *validation_; }
  uint64_t validation_steps() const;

  // From this step of this epoch on, both counted from 0, one epoch after another, shuffled as the job says. Of the virtual replicas that
  // the spec's placement gives this trainer now.
  absl::StatusOr<std::unique_ptr<dataset::Pipeline>> TrainPipeline(uint64_t first_epoch, int64_t first_step) const;
  // One pass in order.
  absl::StatusOr<std::unique_ptr<dataset::Pipeline>> ValidationPipeline() const;

 private:
  DataSource(const RunSpec& spec, int channels) : spec_(spec), channels_(channels) {}
  absl::StatusOr<std::unique_ptr<dataset::Pipeline>> MakePipeline(const dataset::Index& index, const std::string& folder,
                                                                  const dataset::Sampler& sampler, uint64_t first_epoch,
                                                                  int64_t first_step) const;

  const RunSpec& spec_;
  const int channels_;
  std::unique_ptr<dataset::Index> train_, validation_;
  std::unique_ptr<dataset::Sampler> train_sampler_, validation_sampler_;
};

}  // namespace lockstep
