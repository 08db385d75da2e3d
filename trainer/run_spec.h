#pragma once
// What one trainer is to do, as plain data: made from the worker's order, read by everything that includes libtorch (which never
// meets a generated proto header in one translation unit). Values are resolved unless said otherwise.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "allreduce/tree.h"
#include "model/segment.h"

namespace lockstep {

enum class JobKind { kFit, kEvaluate, kPredict };
enum class Device { kCpu, kCuda };

// Names as the job has them: "bilinear", "float32"; planning checks them.
struct ImageSpec {
  int height = 0;  // 0 while planning: the model's input size
  int width = 0;
  std::string method;
  bool antialias = true;
  std::optional<double> scale;
  std::vector<double> mean, std;
  bool full_decode = false;
};

struct StopEarlySpec {
  std::string metric;
  int patience = 0;
  double min_delta = 0;
  std::string mode;
  bool restore_best = false;
  int start_from_epoch = 0;
  std::optional<double> baseline;
};

struct ReduceOnPlateauSpec {
  std::string metric;
  double factor = 0.1;
  int patience = 10;
  double min_delta = 1e-4;
  std::string mode;
  int cooldown = 0;
  double min_learning_rate = 0;
};

// A trainer's place in a generation: what changes when it becomes one of another.
struct Placement {
  uint64_t generation = 0;
  int rank = 0;
  // By rank; as many as there are ranks.
  std::vector<allreduce::LeafRange> runs;
  std::string secret;  // of the generation
};

struct RunSpec : Placement {
  std::string job_id;
  bool joins = false;      // has to ask for its placement first
  int silence_ms = 60000;  // a peer that gives no sign of life for so long is taken for dead
  int threads = 1;
  std::string address;  // to listen on for peers
  std::string scratch;  // a folder of this trainer's own

  JobKind kind = JobKind::kFit;
  Device device = Device::kCpu;  // kCuda: planned, and not run
  std::string model_file;        // base name, for messages
  std::string train_folder;
  std::string validation_folder;  // empty: none
  ImageSpec image;
  bool drop_last = false;
  bool shuffle = true;
  uint64_t skip_bad = 0;
  int64_t pipeline_bytes = 0;
  int decode_threads = 0;
  int batch = 0;
  uint32_t epochs = 0;  // 0: by steps
  uint64_t steps = 0;
  uint64_t seed = 0;
  int virtual_replicas = 0;
  int micro_batch = 0;
  int most_replicas = 1;  // while planning
  bool plan_only = false;
  int64_t memory_limit = 0;         // of the whole process, with kCuda of its device; 0: none
  int64_t worker_memory_bytes = 0;  // while planning: what a trainer can have at all; 0: not known
  bool remedies = true;             // those that keep the bits may be applied
  bool allows_micro_batch = false;  // a smaller one, too, which changes bits
  int64_t tensor_bytes = 0;         // of memory_limit, what tensors may take; 0: no limit
  Recomputation recompute;
  std::vector<Recomputation> next;    // where a step runs out of memory all the same, in this order
  int64_t step_bytes_per_sample = 0;  // of one virtual replica's step after the last of these, what each sample takes; 0: not known
  std::string best_metric, best_mode;
  // A checkpoint every so many steps, or so many seconds; neither: none, or, while planning, the default.
  uint64_t checkpoint_steps = 0, checkpoint_seconds = 0;
  bool never_checkpoint = false;
  int checkpoints_kept = 0;              // 0 while planning: the default
  std::string checkpoint_folder;         // storage of the job's own; empty: the coordinator's
  std::vector<std::string> checkpoints;  // those that there are, the newest first
  std::optional<StopEarlySpec> stop_early;
  std::optional<ReduceOnPlateauSpec> reduce_on_plateau;
  std::string optimizer, loss;
  std::vector<std::string> metrics;
  std::optional<double> learning_rate;
  std::string precision;
  bool log_samples = false;
  int state_hash_every = 1;

  bool keeps_checkpoints() const { return kind == JobKind::kFit && (checkpoint_steps > 0 || checkpoint_seconds > 0); }
  // Of the process of this trainer; 0: none.
  int64_t process_limit() const { return device == Device::kCuda ? 0 : memory_limit; }
  int ranks() const { return static_cast<int>(runs.size()); }
  const allreduce::LeafRange& my_run() const { return runs[static_cast<size_t>(rank)]; }
  // Which virtual replicas each compute thread computes, in order.
  std::vector<allreduce::LeafRange> thread_runs() const;
};

inline std::vector<allreduce::LeafRange> RunSpec::thread_runs() const {
  std::vector<allreduce::LeafRange> result = allreduce::EvenRuns(my_run().size(), std::clamp(threads, 1, my_run().size()));
  for (allreduce::LeafRange& run : result) run = {my_run().begin + run.begin, my_run().begin + run.end};
  return result;
}

}  // namespace lockstep
