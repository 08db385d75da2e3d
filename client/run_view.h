#pragma once
// What a job is at, as far as its events have told: folded one by one, in the order of their sequence. Pure data; time is the
// events' own, so that a job looks the same watched live and watched again. Not thread-safe.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "proto/lockstep.pb.h"

namespace lockstep {

// REFUSED, DONE, FAILED or CANCELLED.
bool HasEnded(v1::JobState state);

// Sums over the samples of one epoch so far.
struct EpochSoFar {
  uint32_t epoch = 0;
  uint64_t steps = 0;
  double samples = 0;
  double loss_sum = 0;
  // Each value times its step's samples, by name in the order of the records.
  std::vector<std::pair<std::string, double>> metric_sums;

  double loss() const { return samples > 0 ? loss_sum / samples : 0; }
};

struct RunView {
  v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
  std::string reason;
  v1::FailureKind failure = v1::NO_FAILURE;
  // 0: not known.
  uint64_t total_steps = 0;
  uint32_t total_epochs = 0;
  uint32_t replicas = 0;
  uint64_t steps_per_epoch = 0;

  uint64_t step = 0;
  uint64_t generation = 0;
  std::string state_hash;
  double last_loss = 0;
  EpochSoFar epoch;
  // Smoothed over about ten steps.
  double images_per_second = 0;
  uint64_t samples = 0;
  // The newest report that held one.
  v1::MemoryReport memory;
  std::vector<v1::EpochRecord> epochs;
  std::optional<v1::Result> result;
  // Of an evaluation or a prediction: how far it has come.
  std::optional<v1::PassRecord> pass;
  std::vector<std::string> notes;
  absl::Time running_since = absl::InfinitePast();
  absl::Time first_step_at = absl::InfinitePast();
  uint64_t first_step = 0;
  absl::Time last_event_at = absl::InfinitePast();
  uint64_t last_sequence = 0;

  v1::Job::Kind kind = v1::Job::FIT;

  // `job` tells what is done, and how many epochs there will be.
  explicit RunView(const v1::Job& job) : total_epochs(job.epochs()), kind(job.kind()) {}

  void Apply(const v1::Event& event);

  // Until the last step, from the mean pace since the first one, validation included. Nothing before the second step, and where
  // the number of steps is not known. Of a pass: from its mean pace.
  std::optional<absl::Duration> TimeLeft() const;

 private:
  void ApplyState(const v1::StateChange& change);
  void ApplyStep(const v1::StepRecord& record);
  void ApplyEpoch(const v1::EpochRecord& record);
};

}  // namespace lockstep
