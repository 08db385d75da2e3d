#pragma once
// Planning: everything that can be wrong with a job is found before it starts, and what is left open is decided. Runs in a
// trainer, on a worker that sees the data. No libtorch in this header.

#include <cstdint>
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

struct PlanOutcome {
  // Every default written out. Meaningless if there are errors.
  RunSpec resolved;
  // Each names its field or file.
  std::vector<std::string> errors;
  Ending failure = Ending::kDone;  // kBadInput or kOutOfMemory with errors
  std::vector<std::string> notes;
  // Of tensor memory on one trainer: peak with one virtual replica at a time by category, and what each further one adds.
  memory::Bytes peak;
  int64_t peak_bytes = 0;
  int64_t bytes_per_further_thread = 0;
  uint64_t total_steps = 0;
  uint64_t train_samples = 0;
  uint64_t validation_samples = 0;
};

// `spec` is the job as submitted, with threads and scratch of this trainer. Writes the indexes that `files` names.
PlanOutcome PlanJob(const RunSpec& spec, const RunFiles& files);

}  // namespace lockstep
