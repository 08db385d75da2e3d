#pragma once
// How far a FIT has come, beside the model's state: what must be equal on all replicas of a generation. Plain data; a function of
// committed steps and of epochs whose end was decided. No libtorch.

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "model/training/best.h"
#include "model/training/early_stopping.h"
#include "model/training/reduce_on_plateau.h"
#include "trainer/leaf_result.h"
#include "trainer/records.h"

namespace lockstep {

// Figures of an epoch, gathered step by step in float64 in the order of steps: the same on every replica.
struct EpochSums {
  double loss = 0;
  std::vector<SumAndCount> metrics;
  uint64_t samples = 0;
  uint32_t epoch = 1;
  std::vector<std::string> bad;
};

struct FitState {
  uint64_t step = 0;   // committed
  uint32_t epoch = 0;  // whole passes over the data that have ended
  uint64_t ends = 0;   // times that the end of an epoch was validated and decided
  uint64_t batch = 0;  // batches of this epoch that are used up
  EpochSums sums;
  std::string state_hash;
  uint64_t images = 0;
  bool weights_kept = false;
  EarlyStoppingState early_stopping;
  ReduceOnPlateauState plateau;
  BestState best;
  std::map<int64_t, std::string> bad_samples;
  std::map<int64_t, std::string> bad_validation_samples;
  // How it ended, if it did; and whether what follows the last step was done to the model.
  bool ended = false;
  Ending ending = Ending::kDone;
  std::string reason;
  bool finished = false;
  // The newest of each as it was told; without how long it took and what memory it had.
  StepFigures last_step;
  EpochFigures last_epoch;
  std::string note;
  std::string records;  // Reporter::Records, on its way from one replica to another

  // Replicas of one generation differ by one batch, or one end of an epoch, at most.
  struct Position {
    uint64_t ends = 0;
    uint64_t batch = 0;
    auto operator<=>(const Position&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 takes the default for a 0
    bool operator==(const Position&) const = default;
  };
  Position position() const { return {ends, batch}; }

  // Every field, in order, for StateWriter and StateReader.
  template <typename Visitor>
  void Fields(Visitor& visit) {
    visit(step, epoch, ends, batch, sums.loss, sums.metrics, sums.samples, sums.epoch, sums.bad, state_hash, images, weights_kept);
    visit(early_stopping, plateau, best, bad_samples, bad_validation_samples, note, records, ended, ending, reason, finished);
    visit(last_step.step, last_step.epoch, last_step.loss, last_step.state_hash, last_step.metrics, last_step.samples,
          last_step.sample_paths, last_step.sample_digest, last_step.leaves, last_step.committed_unix_us);
    visit(last_epoch.epoch, last_epoch.step, last_epoch.loss, last_epoch.metrics, last_epoch.validation, last_epoch.learning_rate,
          last_epoch.samples, last_epoch.bad_samples);
  }
};

}  // namespace lockstep
