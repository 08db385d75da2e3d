#pragma once
// One job on one replica, from the loaded model to the result: FIT, EVALUATE or PREDICT. No libtorch in this header.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "trainer/checkpoint_storage.h"
#include "trainer/gradient_exchange.h"
#include "trainer/planner.h"
#include "trainer/records.h"
#include "trainer/run_spec.h"

namespace lockstep {

struct RunOutcome {
  Ending ending = Ending::kDone;
  std::string reason;
  ResultFigures result;
  // Files of this name in the scratch folder are to be kept: "trained.keras", "best.keras", "predictions.csv". Rank 0 only.
  std::vector<std::string> artifacts;
};

// Runs until the job has ended. While it trains and a peer dies, it goes on in the generation that `regroup` gives, from the state
// that it has or that a peer gives it (docs/reliability.md); a null `regroup` gives none. An error means that this replica cannot go on,
// though the job might: a peer died, the disk is gone. What the job itself did wrong is an Ending.
// Checkpoints are taken from and brought to `storage`, if it has functions for that.
absl::StatusOr<RunOutcome> RunJob(const RunSpec& spec, const RunFiles& files, const Rendezvous& rendezvous, const Regroup& regroup,
                                  const CheckpointStorage& storage, Reporter& reporter);

}  // namespace lockstep
