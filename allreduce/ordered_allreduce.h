#pragma once
// The ordered all-reduce: sums the gradients of all virtual replicas along one fixed tree, to the same bits however many ranks
// share them, while backward still runs, and carries the ranks' verdicts. Between LeafSums, which fills this rank's subtree
// sums, and the update, which uses the result. docs/allreduce.md explains protocol, frames and bytes.
//
// A step: Submit(bucket) for every bucket, in any order and from any thread, as its sums are complete; then Finish. After that
// the result may be read and changed until the first sum of the next step is written. A thread of this object's reduces buckets
// until Finish, whose caller does the rest itself, and shows the peers that this rank is alive.
//
// After an error from Finish or ExchangeVerdicts, but InvalidArgument, the collective is broken for good: peers are told, and
// every later call returns the same error.
//
// Thread-safety: Submit, metrics and memory_use from any thread; Finish and ExchangeVerdicts by one thread.

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "allreduce/group.h"
#include "allreduce/layout.h"
#include "allreduce/listener.h"
#include "allreduce/membership.h"
#include "allreduce/rank_memory.h"
#include "allreduce/reducer.h"
#include "allreduce/rendezvous.h"

namespace lockstep::allreduce {

struct Options {
  Membership membership;
  Layout layout;
  std::string token;  // of the generation; proven to peers, never sent
  Timeouts timeouts;
};

// Bytes since the generation began.
struct Metrics {
  uint64_t bytes_shared = 0;  // read from and written to memory shared with peers
  uint64_t bytes_sent = 0;    // over sockets, headers included
  uint64_t bytes_received = 0;
};

// Bytes of a rank. Both are allocated by Connect, for good.
struct MemoryNeed {
  size_t shared = 0;   // subtree sums, result and control block
  size_t receive = 0;  // buffers for ranks of other hosts
};
// `remote`: by rank, whether it is on another host than membership.rank.
MemoryNeed PredictMemory(const Membership& membership, const Layout& layout, const std::vector<bool>& remote);

// Bytes of a rank as they are: what is mapped from the kernel, what is allocated by size.
struct MemoryUse {
  size_t sums = 0;     // the vectors of this rank's own sums; the first becomes the result
  size_t peers = 0;    // what of the peers' memory of the same host this rank has mapped in, and its own control block
  size_t buffers = 0;  // allocated, for what peers of other hosts send
};

class OrderedAllReduce {
 public:
  // Waits for all peers; one rank alone needs neither listener nor endpoints. PermissionDenied: a peer has another token.
  // FailedPrecondition: it is of another generation. InvalidArgument: the membership makes no sense, or a peer has another, or
  // another layout. Aborted: a peer is gone. DeadlineExceeded: one did not connect. ResourceExhausted: no memory.
  static absl::StatusOr<std::unique_ptr<OrderedAllReduce>> Connect(Options options, std::unique_ptr<Listener> listener,
                                                                   const std::vector<Endpoint>& endpoints);
  ~OrderedAllReduce();

  // Where this rank's sums go: one vector of layout.elements for each maximal subtree of its run. Zero at first. REQUIRES: T is
  // the layout's element.
  template <typename T>
  std::vector<std::span<T>> subtree_sums();
  // After Finish: the sum over all leaves. It is the first of the vectors above.
  template <typename T>
  std::span<T> result();

  // The bucket's sums are complete. InvalidArgument: no such bucket. FailedPrecondition: submitted already. Or why the
  // collective is broken.
  absl::Status Submit(int bucket);

  // Waits for the peers, and returns the verdicts of all, by rank. InvalidArgument: longer than kMaxVerdictBytes; nothing has
  // happened then. FailedPrecondition: a bucket was not submitted. Aborted: a peer died, gave up or was silent for too long; it
  // is named. DataLoss: a frame was damaged.
  absl::StatusOr<std::vector<std::string>> Finish(std::string_view verdict);
  // As Finish, without gradients: all ranks must call it alike.
  absl::StatusOr<std::vector<std::string>> ExchangeVerdicts(std::string_view verdict);

  Metrics metrics() const;
  MemoryUse memory_use() const;

 private:
  explicit OrderedAllReduce(Options options);

  bool BackgroundWork() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  bool NobodyDrives() const ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return !driving_; }
  void WorkInBackground();
  // Takes the driver's seat from the background thread. Returns why the collective is broken, if it is.
  absl::Status TakeOver() ABSL_LOCKS_EXCLUDED(mutex_);
  void HandBack(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::vector<std::string>> DriveToTheEnd(std::string_view verdict, bool with_gradients);
  absl::StatusOr<std::vector<std::string>> Exchange(std::string_view verdict, bool with_gradients);
  void UpdateMetrics();
  uint64_t buckets() const { return options_.layout.buckets.size(); }

  const Options options_;
  std::unique_ptr<Group> group_;  // both belong to whoever drives, but for what is thread-safe
  std::unique_ptr<Reducer> reducer_;
  std::atomic<bool> finishing_{false};  // tells the background thread to yield
  std::atomic<uint64_t> bytes_shared_{0}, bytes_sent_{0}, bytes_received_{0};

  absl::Mutex mutex_;
  bool driving_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> submitted_ ABSL_GUARDED_BY(mutex_);  // of this step
  uint64_t ready_ ABSL_GUARDED_BY(mutex_) = 0;           // leading submitted buckets since the generation began
  uint64_t step_begin_ ABSL_GUARDED_BY(mutex_) = 0;      // as ready_
  uint64_t reduced_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t exchanges_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread background_;
};

}  // namespace lockstep::allreduce
