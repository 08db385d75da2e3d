#include "allreduce/ordered_allreduce.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace lockstep::allreduce {

MemoryNeed PredictMemory(const Membership& membership, const Layout& layout, const std::vector<bool>& remote) {
  MemoryNeed need;
  need.shared = RankMemory::Bytes(layout, membership.SubtreesOf(membership.rank).size());
  for (int rank = 0; rank < membership.ranks(); ++rank) {
    if (!remote[static_cast<size_t>(rank)]) continue;
    need.receive += RemotePeer::ReceiveBytes(layout, membership.ranks(), membership.SubtreesOf(rank).size());
  }
  return need;
}

absl::StatusOr<std::unique_ptr<OrderedAllReduce>> OrderedAllReduce::Connect(Options options, std::unique_ptr<Listener> listener,
                                                                            const std::vector<Endpoint>& endpoints) {
  std::unique_ptr<OrderedAllReduce> all_reduce(new OrderedAllReduce(std::move(options)));
  const Options& mine = all_reduce->options_;
  ASSIGN_OR_RETURN(all_reduce->group_,
                   Group::Connect(mine.membership, mine.layout, mine.token, mine.timeouts, std::move(listener), endpoints));
  all_reduce->reducer_ = std::make_unique<Reducer>(mine.layout, *all_reduce->group_);
  if (mine.membership.ranks() > 1) {
    all_reduce->background_ = std::thread(&OrderedAllReduce::WorkInBackground, all_reduce.get());
  }
  return all_reduce;
}

OrderedAllReduce::OrderedAllReduce(Options options) : options_(std::move(options)), submitted_(options_.layout.buckets.size(), false) {}

OrderedAllReduce::~OrderedAllReduce() {
  {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
    finishing_ = true;
  }
  if (!background_.joinable()) return;
  group_->Nudge();
  background_.join();
}

template <typename T>
std::vector<std::span<T>> OrderedAllReduce::subtree_sums() {
  assert(ElementOf<T>() == options_.layout.element);
  std::vector<std::span<T>> vectors;
  const size_t subtrees = options_.membership.SubtreesOf(options_.membership.rank).size();
  for (size_t subtree = 0; subtree < subtrees; ++subtree) {
    vectors.emplace_back(reinterpret_cast<T*>(group_->memory().vector(subtree)), options_.layout.elements);
  }
  return vectors;
}
template std::vector<std::span<float>> OrderedAllReduce::subtree_sums();
template std::vector<std::span<double>> OrderedAllReduce::subtree_sums();

template <typename T>
std::span<T> OrderedAllReduce::result() {
  return subtree_sums<T>().front();
}
template std::span<float> OrderedAllReduce::result();
template std::span<double> OrderedAllReduce::result();

absl::Status OrderedAllReduce::Submit(int bucket) {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(broken_);
  const auto index = static_cast<size_t>(bucket);
  if (bucket < 0 || index >= submitted_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("bucket ", bucket, " of ", submitted_.size()));
  }
  if (submitted_[index]) return absl::FailedPreconditionError(absl::StrCat("bucket ", bucket, " was submitted already in this step"));
  submitted_[index] = true;
  // The last one waits for its verdict.
  const uint64_t before = ready_;
  while (ready_ + 1 < step_begin_ + buckets() && submitted_[ready_ - step_begin_]) ++ready_;
  // Under the lock, so that what peers see only grows. It does not wait.
  if (ready_ != before) group_->AnnounceReady(ready_);
  return absl::OkStatus();
}

bool OrderedAllReduce::BackgroundWork() const { return ended_ || (!driving_ && !finishing_ && broken_.ok() && reduced_ < ready_); }

void OrderedAllReduce::WorkInBackground() {
  for (;;) {
    uint64_t ready = 0;
    bool has_bucket = false;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(this, &OrderedAllReduce::BackgroundWork), group_->beat());
      if (ended_) return;
      if (driving_ || finishing_ || !broken_.ok()) continue;
      driving_ = true;
      has_bucket = reduced_ < ready_;
      ready = ready_;
      reducer_->BeginExchange(exchanges_ + 1, step_begin_ + buckets());
    }
    if (!has_bucket) {
      HandBack(group_->GiveSignOfLife());
      continue;
    }
    absl::StatusOr<bool> reduced = reducer_->ReduceNext(ready, &finishing_);
    if (reduced.ok() && *reduced) reduced = reducer_->Flush(&finishing_);
    HandBack(reduced.status());
  }
}

void OrderedAllReduce::UpdateMetrics() {
  uint64_t sent = 0, received = 0;
  for (const RemotePeer& peer : group_->remote()) {
    sent += peer.bytes_sent();
    received += peer.bytes_received();
  }
  bytes_sent_ = sent;
  bytes_received_ = received;
  bytes_shared_ = reducer_->bytes_shared();
}

absl::Status OrderedAllReduce::TakeOver() {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(broken_);
  finishing_ = true;
  if (driving_) group_->Nudge();
  mutex_.Await(absl::Condition(this, &OrderedAllReduce::NobodyDrives));
  if (!broken_.ok()) {
    finishing_ = false;
    return broken_;
  }
  driving_ = true;
  return absl::OkStatus();
}

void OrderedAllReduce::HandBack(const absl::Status& status) {
  UpdateMetrics();
  if (!status.ok()) group_->GiveUp(std::string(status.message()));
  absl::MutexLock lock(&mutex_);
  driving_ = false;
  reduced_ = reducer_->reduced();
  if (!status.ok()) {
    broken_ =
        Annotate(status, absl::StrCat("all-reduce of generation ", options_.membership.generation, ", rank ", options_.membership.rank));
  }
}

absl::StatusOr<std::vector<std::string>> OrderedAllReduce::DriveToTheEnd(std::string_view verdict, bool with_gradients) {
  uint64_t end = 0;
  {
    absl::MutexLock lock(&mutex_);
    const auto submitted = static_cast<size_t>(std::count(submitted_.begin(), submitted_.end(), true));
    if (submitted != (with_gradients ? buckets() : 0)) {
      return absl::FailedPreconditionError(absl::StrCat(submitted, " of ", buckets(), " buckets were submitted"));
    }
    end = step_begin_ + (with_gradients ? buckets() : 0);
    reducer_->BeginExchange(exchanges_ + 1, end);
  }
  reducer_->PostVerdict(verdict, with_gradients, end);
  while (reducer_->reduced() < end) RETURN_IF_ERROR(reducer_->ReduceNext(end, nullptr).status());
  return reducer_->FinishExchange();
}

absl::StatusOr<std::vector<std::string>> OrderedAllReduce::Exchange(std::string_view verdict, bool with_gradients) {
  if (verdict.size() > kMaxVerdictBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a verdict of ", verdict.size(), " bytes; at most ", kMaxVerdictBytes, " fit"));
  }
  RETURN_IF_ERROR(TakeOver());
  absl::StatusOr<std::vector<std::string>> verdicts = DriveToTheEnd(verdict, with_gradients);
  HandBack(verdicts.status());
  absl::MutexLock lock(&mutex_);
  finishing_ = false;
  RETURN_IF_ERROR(broken_);
  ++exchanges_;
  if (with_gradients) {
    step_begin_ += buckets();
    ready_ = reduced_ = step_begin_;
    std::fill(submitted_.begin(), submitted_.end(), false);
  }
  return verdicts;
}

absl::StatusOr<std::vector<std::string>> OrderedAllReduce::Finish(std::string_view verdict) { return Exchange(verdict, true); }

absl::StatusOr<std::vector<std::string>> OrderedAllReduce::ExchangeVerdicts(std::string_view verdict) { return Exchange(verdict, false); }

Metrics OrderedAllReduce::metrics() const { return {bytes_shared_, bytes_sent_, bytes_received_}; }

MemoryUse OrderedAllReduce::memory_use() const {
  const Membership& membership = options_.membership;
  MemoryUse use;
  use.sums = membership.SubtreesOf(membership.rank).size() * RoundUpToPage(options_.layout.bytes());
  use.peers = group_->memory().resident_control_bytes();
  for (const LocalPeer& peer : group_->local()) use.peers += peer.memory().resident_bytes();
  for (const RemotePeer& peer : group_->remote()) {
    use.buffers += RemotePeer::ReceiveBytes(options_.layout, membership.ranks(), membership.SubtreesOf(peer.rank()).size());
  }
  return use;
}

}  // namespace lockstep::allreduce
