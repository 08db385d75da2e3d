#pragma once
// What a trainer tells the coordinator, as plain data (proto/progress.proto says what each field means).

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trainer/memory_figures.h"
#include "trainer/verdict.h"

namespace lockstep {

using NamedValues = std::vector<std::pair<std::string, double>>;

struct Phases {
  double wait_for_data = 0, forward = 0, backward = 0, reduce = 0, update = 0, total = 0;
};

struct StepFigures {
  uint64_t step = 0;
  uint32_t epoch = 0;
  double loss = 0;
  std::string state_hash;
  NamedValues metrics;
  uint32_t samples = 0;
  std::vector<std::string> sample_paths;
  Phases phases;
  double images_per_second = 0;
  MemoryFigures memory;
  uint64_t sample_digest = 0;
  std::vector<LeafUse> leaves;
  int64_t committed_unix_us = 0;
};

struct EpochFigures {
  uint32_t epoch = 0;
  uint64_t step = 0;
  double loss = 0;
  NamedValues metrics;
  NamedValues validation;
  double learning_rate = 0;
  uint64_t samples = 0;
  std::vector<std::string> bad_samples;
  double wall_seconds = 0;
};

// A pass that trains nothing, so far: this replica's share.
struct PassFigures {
  uint64_t batch = 0;
  uint64_t batches = 0;
  std::optional<double> loss;
  NamedValues metrics;
  double images_per_second = 0;
  double wall_seconds = 0;
  MemoryFigures memory;
};

struct ResultFigures {
  uint64_t steps = 0;
  uint32_t epochs = 0;
  double images_per_second = 0;
  double wall_seconds = 0;
  double loss = 0;
  NamedValues metrics;
  NamedValues validation;
  std::string state_hash;
  MemoryFigures memory;
  std::string note;
  uint64_t samples = 0;
};

// Of the checkpoints that this trainer wrote.
struct CheckpointFigures {
  uint64_t step = 0;         // of the newest
  uint64_t bytes = 0;        // of its state
  double seconds = 0;        // from its beginning until it was kept
  double stall_seconds = 0;  // that steps waited for copies, over all
  uint64_t written = 0, skipped = 0, failed = 0;
};

// Of changes of the generation, from the last step before until the pipeline was made for the next.
struct PauseFigures {
  uint64_t count = 0;
  double seconds = 0;  // over all of them
  double last_seconds = 0;
};

// For the worker, which shows it as metrics.
struct StatusFigures {
  std::string phase;
  uint64_t step = 0;
  uint32_t epoch = 0;
  double loss = 0;
  double images_per_second = 0;
  Phases phase_seconds;  // sums
  uint64_t all_reduce_bytes = 0;
  uint64_t pipeline_bytes = 0;
  uint32_t pipeline_depth = 0;
  MemoryFigures memory;
  uint64_t images = 0;
  CheckpointFigures checkpoint;
  PauseFigures pauses;
  uint64_t out_of_memory_retries = 0;
  uint64_t refused_allocations = 0;
};

// How a run ended, if not by an error of the machine.
enum class Ending { kDone, kCancelled, kBadInput, kOutOfMemory, kFailed, kPaused };

// Where a run's figures go. Thread-safe; calls do not wait for the network.
class Reporter {
 public:
  virtual ~Reporter() = default;
  virtual void Step(StepFigures figures) = 0;
  virtual void Epoch(EpochFigures figures) = 0;
  virtual void Pass(PassFigures figures) = 0;
  virtual void Note(std::string text) = 0;
  virtual void Status(StatusFigures figures) = 0;
  // The worker or the coordinator wants this trainer to end at the next step boundary.
  virtual bool CancelWanted() const = 0;
  // The same, with a checkpoint to go on from.
  virtual bool PauseWanted() const = 0;
  // Steps are told by every replica. The newest of them whose record is durable, as far as this one knows; and what the others know.
  virtual uint64_t DurableStep() const = 0;
  virtual void Forget(uint64_t durable_step) = 0;
  // All replicas have the same state after this step: it, and what was told of it, may be passed on.
  virtual void Agreed(uint64_t step) = 0;
  // Steps and epochs that are not durable, as far as is known, in place of those that another replica has.
  virtual std::string Records() const = 0;
  virtual void TakeRecords(const std::string& records) = 0;
  // The newest generation of the job that this trainer was told of; 0: of none.
  virtual uint64_t NewestGeneration() const = 0;
  // For whoever wonders why a step does not end. `phase` lives for good; see Activity.
  virtual void Enter(const char* phase, uint64_t step) = 0;
  // The step that comes next, and its samples, before it may kill us.
  virtual void InHand(std::string text) = 0;
};

}  // namespace lockstep
