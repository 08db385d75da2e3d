#pragma once
// Planning: everything that can be wrong with a job is found before it starts, and what is left open is decided. Runs in a
// trainer, on a worker that sees the data. No libtorch in this header.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "memory/category.h"
#include "trainer/records.h"
#include "trainer/run_spec.h"

namespace lockstep {

// Files of one run, in the trainer's scratch folder.
struct RunFiles {
  std::string model;             // the submitted archive
  std::string train_index;       // written by planning, read by training
  std::string validation_index;  // empty without validation
};

// What a job needs (proto/progress.proto says what each field means).
struct MemoryProfile {
  Device device = Device::kCpu;
  struct Remedy {
    std::string name, text;
    int64_t resident_bytes = 0;
    double time_ratio = 1;
    bool applied = false, changes_bits = false;
  };
  memory::Bytes peak;
  int64_t peak_bytes = 0;
  int64_t bytes_per_further_thread = 0;
  int64_t resident_bytes = 0;
  int64_t expected_resident_bytes = 0;
  int64_t limit_bytes = 0;
  std::string at_peak;
  int64_t largest_batch = 0;
  std::vector<Remedy> remedies;
  std::vector<int64_t> timeline_bytes;
  std::vector<int> timeline_places;
  std::vector<std::string> places;
  int threads = 1;
  std::string method;
  memory::Bytes host;  // with kCuda: all of the above is of the device
};

// What a process takes once it has taken steps, beside what planning counts: libraries, static data, what they keep in the heap.
using RuntimeBytes = std::function<int64_t()>;

struct PlanOutcome {
  // Every default written out. Meaningless if there are errors.
  RunSpec resolved;
  // Each names its field or file.
  std::vector<std::string> errors;
  Ending failure = Ending::kDone;  // kBadInput or kOutOfMemory with errors
  std::vector<std::string> notes;
  // Also of a job that is refused for memory.
  std::optional<MemoryProfile> profile;
  uint64_t total_steps = 0;
  uint64_t train_samples = 0;
  uint64_t validation_samples = 0;
};

// `spec` is the job as submitted, with threads and scratch of this trainer. Writes the indexes that `files` names. The runtime's bytes are
// those of this process if they are not given.
PlanOutcome PlanJob(const RunSpec& spec, const RunFiles& files, RuntimeBytes runtime_bytes = nullptr);

}  // namespace lockstep
