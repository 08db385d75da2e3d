#pragma once
// This replica's place in the generation: its connection to the peers, and the sums that its compute threads add to. Between
// the leaf runners and the step loop. No libtorch.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "allreduce/leaf_sums.h"
#include "allreduce/ordered_allreduce.h"
#include "trainer/memory_account.h"
#include "trainer/run_spec.h"
#include "trainer/verdict.h"

namespace lockstep {

// Publishes this rank's endpoint and returns all, by rank; fails if the ranks' environments differ.
using Rendezvous = std::function<absl::StatusOr<std::vector<allreduce::Endpoint>>(const allreduce::Endpoint& mine,
                                                                                  const std::map<std::string, std::string>& environment)>;

// Why a replica asks for its place in a newer generation.
struct Asking {
  bool finished = false;  // all steps are done: it waits for the end of the job
  std::string reason;
  std::vector<int> silent_ranks;  // that it could not hear
};
// FailedPrecondition: it has none, and will have none.
using Regroup = std::function<absl::StatusOr<Placement>(const Asking& asking)>;

template <typename T>
class GradientExchange {
 public:
  static absl::StatusOr<std::unique_ptr<GradientExchange>> Join(const RunSpec& spec, const allreduce::Layout& layout,
                                                                const Rendezvous& rendezvous,
                                                                const std::map<std::string, std::string>& environment,
                                                                std::function<bool()> abandoned);

  allreduce::LeafSums<T>& sums() { return *sums_; }
  // The sums are made anew, for the spec's threads as they are now: references to the old ones end. REQUIRES: no step is under way.
  void SpreadOverThreads(const allreduce::Layout& layout);
  absl::Status BeginStep() { return sums_->BeginStep(); }
  // Waits for the peers. After OK, reduced() holds the sum over all leaves until the next BeginStep. Internal: this replica's state is
  // not that of the others. Aborted: that of another is not, or see OrderedAllReduce::Finish.
  absl::StatusOr<JointVerdict> Finish(const Verdict& verdict);
  // A step without gradients: only verdicts meet. Errors as Finish.
  absl::StatusOr<JointVerdict> ExchangeVerdicts(const Verdict& verdict);
  absl::Span<T> reduced();
  // Any bytes, at most allreduce::kMaxVerdictBytes; those of all, by rank. All ranks must call it alike.
  absl::StatusOr<std::vector<std::string>> Exchange(std::string_view mine) { return all_reduce_->ExchangeVerdicts(mine); }

  // What the sums and the receive buffers were predicted to take, for the limit of tensor memory.
  int64_t memory_bytes() const;
  // What they take, by category, as it is now.
  OwnedBytes owned_bytes() const;
  // Of all that went between ranks so far.
  int64_t exchanged_bytes() const;

 private:
  absl::StatusOr<JointVerdict> Join(const std::vector<std::string>& verdicts) const;
  GradientExchange(const RunSpec& spec, std::unique_ptr<allreduce::OrderedAllReduce> all_reduce, const allreduce::Layout& layout);

  const RunSpec& spec_;
  const std::unique_ptr<allreduce::OrderedAllReduce> all_reduce_;
  std::unique_ptr<allreduce::LeafSums<T>> sums_;
  int64_t fixed_bytes_ = 0;
};

extern template class GradientExchange<float>;
extern template class GradientExchange<double>;

}  // namespace lockstep
