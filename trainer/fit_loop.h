#pragma once
// The loop of a FIT: one step, or the end of an epoch, at a time, each whole or without an effect; and what happens when the members
// of its generation change. fit.cc has the steps, fit_epoch.cc what comes at the end of an epoch and of the run, fit_retry.cc what is done
// where memory runs out. Used by one thread.

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "trainer/callbacks.h"
#include "trainer/checkpoint_writer.h"
#include "trainer/data_source.h"
#include "trainer/fit_state.h"
#include "trainer/memory_account.h"
#include "trainer/place.h"
#include "trainer/remedy.h"
#include "trainer/training.h"

namespace lockstep {

template <typename T>
class Fit {
 public:
  Fit(const RunSpec& spec, const RunFiles& files, const Model& model, const DataSource& data, MemoryAccount& account, Replica<T>& replica,
      Place<T>& place, const CheckpointStorage& storage, Reporter& reporter)
      : spec_(spec),
        files_(files),
        model_(model),
        data_(data),
        account_(account),
        replica_(replica),
        place_(place),
        storage_(storage),
        reporter_(reporter),
        recomputations_(static_cast<int>(spec.next.size())),
        remedies_{.threads = spec.threads} {}

  absl::Status Prepare(const Recipe& recipe);
  absl::StatusOr<RunOutcome> Run();

 private:
  bool StepsLeft() const { return spec_.steps == 0 || state_.step < spec_.steps; }
  bool EpochsLeft() const { return spec_.epochs == 0 || state_.epoch < spec_.epochs; }
  uint64_t StepsPerEpoch() const { return static_cast<uint64_t>(data_.train_sampler().StepsPerEpoch()); }
  bool WorkLeft() const { return !state_.ended && (state_.batch > 0 || (StepsLeft() && EpochsLeft())); }
  // From the newest checkpoint that is whole, if there is one.
  absl::Status Restore();
  // Null where this replica writes none.
  CheckpointWriter<T>* Checkpoints();
  // One step, or the end of an epoch: whole, or without an effect.
  absl::Status Advance();
  // After the last of them: what follows, once all replicas have done it; then rank 0 ends, and the others once the job has.
  absl::Status Conclude();
  // On, in a newer generation: this one broke, or has others as members.
  absl::Status GoOn(absl::Status why);
  // In a generation that was entered: to where the furthest of its members is.
  absl::Status CatchUp();
  absl::Status MakePipeline();
  // Before a step, now and then: which samples it has.
  void TellInHand();
  Word MyWord() const;
  // After every exchange.
  void Heed(const JointVerdict& verdict);
  absl::Status RunStep();
  // What replicas know together of a step that ran out of memory.
  struct Shortage {
    Remedies furthest;
    std::string text;           // of the first rank that can tell
    int64_t missing_bytes = 0;  // at most, of the limit
    int64_t asked_bytes = 0;    // at most, by what was refused
  };
  absl::StatusOr<Shortage> Confer(const std::string& what, const JointVerdict& verdict, const std::optional<memory::Refusal>& refusal);
  // Some replica ran out of memory in `what`, which had no effect: all do the same about it, or the run ends.
  absl::Status TakeAgain(const std::string& what, const JointVerdict& verdict, const std::optional<memory::Refusal>& refusal);
  // The submitted archive with the state as it is. Where memory runs out for it, it is tried again.
  absl::Status WriteArchive(const char* name);
  // False: the run ends.
  bool Accept(const StepOutcome& step);
  bool CountBad(const std::vector<BadSample>& bad, const dataset::Index& index, const char* data_set);
  void Report(const StepOutcome& step);
  absl::Status EndEpoch();
  absl::StatusOr<NamedValues> Validate();
  absl::Status Decide(const EpochLogs& logs);
  // What follows the last step: changes the replica.
  absl::Status Finish();
  absl::Status WriteResults();
  void End(Ending ending, std::string reason);
  std::string Scratch(const char* name) const { return absl::StrCat(spec_.scratch, "/", name); }
  OwnedBytes Owned() const;
  // What tensors hold by category when the run ends.
  void LogLive() const;

  const RunSpec& spec_;
  const RunFiles& files_;
  const Model& model_;
  const DataSource& data_;
  MemoryAccount& account_;
  Replica<T>& replica_;
  Place<T>& place_;
  const CheckpointStorage& storage_;
  Reporter& reporter_;
  const int recomputations_;  // planned for where memory runs out

  Callbacks callbacks_;
  std::unique_ptr<dataset::Pipeline> pipeline_;
  RunOutcome outcome_;
  bool over_ = false;  // nothing is left to do here
  bool settled_ = false;
  // As all replicas know alike since the last exchange.
  uint64_t newest_generation_ = 0;
  bool cancel_ = false;
  bool pause_ = false;
  FitState state_;
  absl::Time epoch_start_ = absl::Now();
  Phases phase_totals_;
  PauseFigures pauses_;
  Remedies remedies_;
  uint64_t retries_ = 0;
  absl::Time last_status_ = absl::InfinitePast();
  absl::Time told_in_hand_ = absl::InfinitePast();
  std::unique_ptr<CheckpointWriter<T>> checkpoints_;  // its thread reads from the replica
};

}  // namespace lockstep
