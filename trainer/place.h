#pragma once
// This replica's place in the newest generation of its job: the exchange with the peers, and the runner of steps over it. When a
// peer dies both are made anew, for another membership, in the same process: model, replica and data stay. Includes libtorch
// through its parts. Used by one thread.

#include <memory>

#include "absl/status/status.h"
#include "allreduce/layout.h"
#include "memory/requests.h"
#include "trainer/gradient_exchange.h"
#include "trainer/records.h"
#include "trainer/remedy.h"
#include "trainer/replica.h"
#include "trainer/run_spec.h"
#include "trainer/step_runner.h"

namespace lockstep {

template <typename T>
class Place {
 public:
  // A null `regroup`: there is no generation but this one. All must outlive this object; `spec`'s placement is changed by Move.
  Place(RunSpec& spec, const Model& model, const Recipe& recipe, Replica<T>& replica, const allreduce::Layout& layout,
        const Rendezvous& rendezvous, const Regroup& regroup, Reporter& reporter)
      : spec_(spec),
        model_(model),
        recipe_(recipe),
        replica_(replica),
        layout_(layout),
        rendezvous_(rendezvous),
        regroup_(regroup),
        reporter_(reporter) {}

  // Meets the peers of spec's generation, or, if it joins or one of them dies meanwhile, those of a newer one.
  absl::Status Enter();
  // Leaves this generation for the reason that is given, and enters a newer one. FailedPrecondition: there is none for this replica any
  // more.
  absl::Status Move(const absl::Status& why);
  // After the last step: true once the job has ended, or false in a newer generation, which was entered.
  absl::StatusOr<bool> AwaitEnd();
  // Whether this is another generation than the one that the process was started for: its members may be a step apart.
  bool moved() const { return moved_; }

  // Between steps: freed memory that was kept goes back, and from now on no more than so many threads compute, and as many of the planned
  // recomputations have been taken up. A runner and sums that were got before are gone. REQUIRES: Enter succeeded.
  void Ease(const Remedies& remedies);
  // What this replica's threads ask for.
  memory::Requests& requests() { return requests_; }

  // Until the next Move or Ease. REQUIRES: Enter succeeded.
  GradientExchange<T>& exchange() { return *exchange_; }
  StepRunner<T>& runner() { return *runner_; }

 private:
  absl::Status Join();
  absl::Status MoveTo(Placement placement);
  void SetTensorLimit();
  void MakeRunner();

  RunSpec& spec_;
  const Model& model_;
  const Recipe& recipe_;
  Replica<T>& replica_;
  const allreduce::Layout& layout_;
  const Rendezvous& rendezvous_;
  const Regroup regroup_;
  Reporter& reporter_;
  memory::Requests requests_;
  std::unique_ptr<GradientExchange<T>> exchange_;
  std::unique_ptr<StepRunner<T>> runner_;
  bool moved_ = false;
  int recomputations_ = 0;  // of those planned, taken up
};

// Of an exchange: a peer died, was silent, or said what cannot be; nothing that this process could not survive.
inline bool IsPeersTrouble(const absl::Status& status) { return absl::IsAborted(status) || absl::IsDataLoss(status); }

extern template class Place<float>;
extern template class Place<double>;

}  // namespace lockstep
