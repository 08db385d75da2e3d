#pragma once
// What a pipeline will take of its budget. Between the data set, of which a few pictures are loaded to see what they cost, and planning,
// which knows how fast training takes batches: threads that fill and threads that train are played through, on a clock of their own, with
// the tuner that a pipeline has. An expectation, and no bound: that is the budget.

#include <cstdint>
#include <string>

#include "dataset/index.h"
#include "dataset/pipeline.h"
#include "dataset/sampler.h"

namespace lockstep::dataset {

// Of one picture.
struct PictureCosts {
  double seconds = 0;        // to load it, on one thread
  int64_t thread_bytes = 0;  // at most, of a thread's own buffers
  int64_t large_bytes = 0;   // at most, beside them
};
// By up to eight pictures of the index, or as many as a quarter of a second is enough for. Those that cannot be loaded are passed over.
PictureCosts MeasurePictures(const ImageOptions& image, const Index& index, const std::string& folder);

// Who takes batches: threads that share out the pipeline's virtual replicas, and begin each step together.
struct Consumption {
  int threads = 1;
  double seconds_per_sample = 0;
};

// The most bytes held in the first steps, buffers and what threads have touched; at most the budget.
int64_t ForecastBytes(const PipelineOptions& options, const Sampler& sampler, const PictureCosts& picture, const Consumption& consumption);

}  // namespace lockstep::dataset
