#include "trainer/gradient_exchange.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "trainer/process_figures.h"

namespace lockstep {

template <typename T>
absl::StatusOr<std::unique_ptr<GradientExchange<T>>> GradientExchange<T>::Join(const RunSpec& spec, const allreduce::Layout& layout,
                                                                               const Rendezvous& rendezvous,
                                                                               const std::map<std::string, std::string>& environment,
                                                                               std::function<bool()> abandoned) {
  allreduce::Options options;
  options.membership = {spec.generation, spec.virtual_replicas, spec.runs, spec.rank};
  options.layout = layout;
  options.token = spec.secret;
  // Its worker kills a stopped peer after this; what is silent for longer cannot be reached.
  options.timeouts.silence = absl::Milliseconds(spec.silence_ms) * 3 / 2;
  options.timeouts.connect = options.timeouts.silence;
  options.timeouts.abandoned = std::move(abandoned);
  std::unique_ptr<allreduce::Listener> listener;
  std::vector<allreduce::Endpoint> endpoints;
  if (spec.ranks() > 1) {
    ASSIGN_OR_RETURN(listener, allreduce::Listener::Create({.host_id = HostId(), .bind_address = spec.address}));
    ASSIGN_OR_RETURN(endpoints, rendezvous(listener->endpoint(), environment));
  }
  ASSIGN_OR_RETURN(auto all_reduce, allreduce::OrderedAllReduce::Connect(options, std::move(listener), endpoints));
  std::unique_ptr<GradientExchange> exchange(new GradientExchange(spec, std::move(all_reduce), layout));
  std::vector<bool> remote;
  remote.reserve(endpoints.size() + 1);
  for (const allreduce::Endpoint& endpoint : endpoints) remote.push_back(endpoint.host_id != HostId());
  if (remote.empty()) remote.push_back(false);
  const allreduce::MemoryNeed need = allreduce::PredictMemory(options.membership, layout, remote);
  exchange->fixed_bytes_ = static_cast<int64_t>(need.shared + need.receive);
  return exchange;
}

template <typename T>
GradientExchange<T>::GradientExchange(const RunSpec& spec, std::unique_ptr<allreduce::OrderedAllReduce> all_reduce,
                                      const allreduce::Layout& layout)
    : spec_(spec), all_reduce_(std::move(all_reduce)) {
  SpreadOverThreads(layout);
}

template <typename T>
void GradientExchange<T>::SpreadOverThreads(const allreduce::Layout& layout) {
  sums_.reset();  // their memory first
  sums_ =
      std::make_unique<allreduce::LeafSums<T>>(spec_.virtual_replicas, spec_.thread_runs(), layout, all_reduce_->template subtree_sums<T>(),
                                               // What breaks here is reported by Finish.
                                               [this](int bucket) { all_reduce_->Submit(bucket).IgnoreError(); });
}

template <typename T>
absl::StatusOr<JointVerdict> GradientExchange<T>::Finish(const Verdict& verdict) {
  ASSIGN_OR_RETURN(const std::vector<std::string> verdicts, all_reduce_->Finish(EncodeVerdict(verdict)));
  return Join(verdicts);
}

template <typename T>
absl::StatusOr<JointVerdict> GradientExchange<T>::ExchangeVerdicts(const Verdict& verdict) {
  ASSIGN_OR_RETURN(const std::vector<std::string> verdicts, all_reduce_->ExchangeVerdicts(EncodeVerdict(verdict)));
  return Join(verdicts);
}

template <typename T>
absl::StatusOr<JointVerdict> GradientExchange<T>::Join(const std::vector<std::string>& verdicts) const {
  ASSIGN_OR_RETURN(JointVerdict joint, JoinVerdicts(verdicts, spec_.virtual_replicas));
  if (joint.divergent.empty()) return joint;
  if (std::find(joint.divergent.begin(), joint.divergent.end(), spec_.rank) != joint.divergent.end()) {
    return absl::InternalError(absl::StrCat("this is rank ", spec_.rank, ", which ends: ", joint.divergence));
  }
  return absl::AbortedError(joint.divergence);
}

template <typename T>
absl::Span<T> GradientExchange<T>::reduced() {
  const std::span<T> result = all_reduce_->template result<T>();
  return absl::MakeSpan(result.data(), result.size());
}

template <typename T>
int64_t GradientExchange<T>::memory_bytes() const {
  return fixed_bytes_ + static_cast<int64_t>(sums_->temporary_bytes());
}

template <typename T>
OwnedBytes GradientExchange<T>::owned_bytes() const {
  const allreduce::MemoryUse use = all_reduce_->memory_use();
  const auto lanes = static_cast<int64_t>(sums_->temporary_bytes());
  const auto buffers = static_cast<int64_t>(use.buffers);
  return {.gradients = static_cast<int64_t>(use.sums) + lanes,
          .communication = static_cast<int64_t>(use.peers) + buffers,
          .in_heap = lanes + buffers};
}

template <typename T>
int64_t GradientExchange<T>::exchanged_bytes() const {
  const allreduce::Metrics metrics = all_reduce_->metrics();
  return static_cast<int64_t>(metrics.bytes_shared + metrics.bytes_sent + metrics.bytes_received);
}

template class GradientExchange<float>;
template class GradientExchange<double>;

}  // namespace lockstep
