#pragma once
// The most samples that a virtual replica's step may have so that it stays within what is left for it, with as much as possible computed
// again where remedies are allowed. Beside MemoryFit, which asks it. No libtorch in this header.
//
// Micro-batches of one regime (RecordedPass) are told from one recording; where all or nothing of a regime fits, the answer is in the next,
// or in the one before. What to compute again is chosen by the costs that one recording says, in whatever regime it is then recorded.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/segment.h"
#include "trainer/run_spec.h"
#include "trainer/trial.h"

namespace lockstep {

// The most samples of a micro-batch of the regime of which `fits` says so; 0: none. REQUIRES: if some fit, fewer do.
int64_t MostSamples(const RecordedPass::Regime& regime, const std::function<bool(int64_t samples)>& fits);

class LargestBatch {
 public:
  // `spec` has another micro-batch while something is recorded. `bytes` are left for a step of the micro-batch that it has now;
  // `pipeline_bytes_per_sample` are added for each sample more. All must outlive this object.
  LargestBatch(RunSpec& spec, Trial& trial, const CallGraph& graph, int64_t bytes, int64_t pipeline_bytes_per_sample);

  // Samples of a micro-batch; 0: not even one. `plain` is recorded for the micro-batch that `spec` has, and `least`, if it is given, with
  // as much as possible computed again, which does not fit.
  int64_t Find(const RecordedPass& plain, const RecordedPass* least);
  // Empty, or why there may be more.
  const std::string& note() const { return note_; }

 private:
  bool limited() const { return spec_.memory_limit > 0; }
  // What a step of so many samples may take.
  int64_t Left(int64_t samples) const { return bytes_ - (samples - planned_) * pipeline_bytes_per_sample_; }
  // Of the pass's regime.
  int64_t Of(const RecordedPass& pass) const;
  // The segments with which the most samples fit, about, and how many that are, of all regimes.
  std::vector<Segment> ForMost(const RecordedPass& plain, int64_t& about) const;
  // Runs `work` with another micro-batch.
  void With(int64_t samples, const std::function<void()>& work);
  // Of the regime of `samples`. -1: it cannot be recorded.
  int64_t From(int64_t samples, const std::vector<Segment>& segments);
  int64_t AcrossRegimes(RecordedPass::Regime at, int64_t samples, const std::vector<Segment>& segments);

  RunSpec& spec_;
  Trial& trial_;
  const CallGraph& graph_;
  const int64_t planned_;
  const int64_t bytes_, pipeline_bytes_per_sample_;
  std::string note_;
};

}  // namespace lockstep
