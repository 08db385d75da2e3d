#pragma once
// Fit for a CUDA device: what a trainer takes of the device and, beside it, of the host, and which remedies it needs to stay within the
// limit, which is the device's. In planning, in the place of MemoryFit, on a machine that need not have a device.
//
// The device: the recorded step is replayed, a few times over, through the model of libtorch's allocator (memory/cuda_allocator.h), on top
// of the state, the gradients, the pictures and the workspaces; beside that allocator are the booked constants (memory/cuda_booking.h). One
// virtual replica goes at a time. "Fits" means that the replay gets all it asks for within what the limit leaves to the allocator.
//
// Remedies, each only as far as needed: segments of the graph computed twice; a smaller micro-batch, where the job allows it. No libtorch
// in this header.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memory/cuda_allocator.h"
#include "memory/cuda_booking.h"
#include "trainer/memory_fit.h"
#include "trainer/planner.h"
#include "trainer/run_spec.h"
#include "trainer/trial.h"

namespace lockstep {

class CudaFit {
 public:
  // `spec` is resolved further; all must outlive this object. `sample_bytes`: of a picture and its label, as the input pipeline has them.
  CudaFit(RunSpec& spec, Trial& trial, const CallGraph& graph, RuntimeBytes runtime_bytes, int64_t sample_bytes,
          const memory::CudaConstants& constants);

  // ResourceExhausted: nothing fits; says what would. Else as Trial::Record. The profile is there also of what does not fit.
  absl::Status Run();

  const MemoryProfile& profile() const { return profile_; }
  const std::vector<std::string>& notes() const { return notes_; }

  // What lies in the device's allocator as long as the process lives, in this order: workspaces, the state, gradients, two micro-batches of
  // pictures (one that is computed, and the next), what peers send.
  std::vector<std::pair<memory::Category, int64_t>> StateBlocks(int64_t micro_batch) const;

 private:
  // Of gradients, in the membership that takes the most.
  struct Exchange {
    int ranks = 1;
    int vectors = 0;  // sums, as large as the vector of gradients
    int64_t receive_bytes = 0;
  };
  Exchange WorstExchange() const;
  // What a limit leaves to the allocator; not above 0: nothing.
  int64_t PoolBytes(int64_t limit) const { return limit - beside_.Total(); }
  // 0 pool bytes: no limit.
  memory::CudaReplay Replay(const RecordedPass& pass, int64_t micro_batch, int64_t pool_bytes) const;
  bool Fits(const RecordedPass& pass, int64_t micro_batch, int64_t limit) const;
  // The least limit of whole MiB within which it fits.
  int64_t LeastLimit(const RecordedPass& pass, int64_t micro_batch) const;
  // Of the device, within the limit if it fits there.
  int64_t DeviceBytes(const RecordedPass& pass) const;

  // Those with the fewest bytes, the same in every process: what calls take of time, which is measured, has no say. Looked for once.
  const memory::Choice& LeastOfMemory(int64_t micro_batch);
  absl::Status RecordPlain();
  absl::Status Apply();
  // The segments with the least extra time with which it fits, as recorded: chosen_ and recompute_ are theirs, or, if none fit, those with
  // the fewest bytes. Whether it fits.
  absl::StatusOr<bool> Recompute();
  absl::Status Record(const memory::Choice& choice);
  // Changes bits: where the job allows it.
  absl::Status MakeMicroBatchSmaller();
  void Add(const char* name, std::string text, int64_t bytes, double time_ratio, bool applied);
  void ListFurther();
  absl::Status FindLargestBatch();
  void Describe(bool fits);
  absl::Status Refuse() const;
  std::string WhatWouldFit() const;

  RunSpec& spec_;
  Trial& trial_;
  const CallGraph& graph_;
  const RuntimeBytes runtime_bytes_;
  const int64_t sample_bytes_;
  const memory::CudaConstants constants_;
  const int64_t limit_;  // of the device; 0: none
  const Exchange exchange_;
  const memory::Bytes beside_;  // beside the allocator
  RecordedPass plain_, chosen_;
  std::map<int64_t, memory::Choice> least_;  // by micro-batch, of plain_
  Recomputation recompute_;                  // of chosen_
  MemoryProfile profile_;
  std::vector<std::string> notes_;
};

}  // namespace lockstep
