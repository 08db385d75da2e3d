#pragma once
// Fit: what one trainer of a job takes, all of it, and which remedies it needs to stay within its limit. In planning, between the trial,
// which says what a pass takes, and the profile, which admission reads.
//
// Remedies that keep the bits, in the order in which they are tried, each only as far as needed: fewer virtual replicas side by side, a
// smaller input pipeline, segments of the graph computed twice. A smaller micro-batch changes bits, and is tried last, where the job allows
// it. No libtorch in this header.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/planner.h"
#include "trainer/run_spec.h"
#include "trainer/trial.h"

namespace lockstep {

// What the C heap keeps for later, and what only training has of libraries.
inline constexpr int64_t kHeapSlackBytes = 24 << 20;
// More than a picture of usual width shows.
inline constexpr size_t kTimelinePoints = 1000;

// Beside the tensors of steps.
struct MemoryAround {
  RuntimeBytes runtime_bytes;             // asked once steps were recorded
  int64_t pipeline_bytes_per_sample = 0;  // that each further sample of a virtual replica adds to the least
  int64_t least_pipeline_bytes = 0;       // with which the input pipeline can run
  uint64_t total_steps = 0;
  // What the input pipeline will take of a budget, where training takes so long for each sample.
  std::function<int64_t(int64_t budget, int threads, double seconds_per_sample)> expected_pipeline_bytes;
};

class MemoryFit {
 public:
  // `spec` is resolved further; all must outlive this object.
  MemoryFit(RunSpec& spec, Trial& trial, const CallGraph& graph, MemoryAround around);

  // ResourceExhausted: nothing fits; says what would. Else as Trial::Record. The profile is there also of what does not fit.
  absl::Status Run();

  const MemoryProfile& profile() const { return profile_; }
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  // What can be chosen.
  struct Setting {
    int threads = 1;
    int64_t pipeline_bytes = 0;
    Recomputation recompute;  // with the bytes of one virtual replica's step
  };
  // Of the whole process, by category.
  memory::Bytes BytesOf(const Setting& setting, const memory::Bytes& step) const;
  int64_t Total(const Setting& setting) const;
  // What one virtual replica's step may take.
  int64_t Left(const Setting& setting) const { return limit_ - (Total(setting) - setting.threads * setting.recompute.bytes_per_thread); }
  // The most for so many replicas, or more, up to the most that the job may have.
  int64_t ExchangeBytes(int threads, int replicas, int64_t* of_gradients) const;
  int MostReplicas() const { return std::clamp(spec_.most_replicas, 1, spec_.virtual_replicas); }
  // Of the whole process, as it will be, where BytesOf is a bound.
  int64_t Expected(const Setting& setting, const memory::Trace& step, int64_t step_bytes) const;
  bool WillCopyState(double seconds_per_step) const;

  absl::Status RecordPlain();
  memory::PassCosts Costs(int64_t micro_batch) const { return plain_.CostsAt(micro_batch, graph_); }
  // What a choice by costs leaves out.
  int64_t Beyond(int64_t micro_batch, const memory::PassCosts& costs) const;
  absl::Status Apply(Setting& setting);
  // Changes bits: where the job allows it.
  absl::Status MakeMicroBatchSmaller(Setting& setting);
  // The segments with the least extra time of which one virtual replica's step takes no more than `bytes`, as recorded. NotFound: none.
  absl::StatusOr<Recomputation> Recompute(int64_t bytes);
  absl::StatusOr<Recomputation> Recorded(const memory::Choice& choice);
  void PlanNext(const Setting& setting);
  // What is not needed, and would be possible.
  void ListFurther(Setting setting);
  void FindLargestBatch(Setting setting, bool refused);
  // What each sample adds to a step with all remedies; 0: not known.
  int64_t BytesPerSample(const Setting& setting) const;
  void Add(const char* name, std::string text, const Setting& setting, bool applied);
  void Describe(const Setting& setting);
  absl::Status Refuse(const Setting& setting) const;
  std::string WhatWouldFit(const Setting& setting) const;

  RunSpec& spec_;
  Trial& trial_;
  const CallGraph& graph_;
  const MemoryAround around_;
  int64_t runtime_bytes_ = 0;
  const int64_t limit_;
  const int threads_;  // asked for
  RecordedPass plain_, chosen_;
  MemoryProfile profile_;
  std::vector<std::string> notes_;
};

}  // namespace lockstep
