#pragma once
// The collective itself, a bucket at a time and in their order: sums of each chunk to the rank that reduces it, the rest of the
// tree there, the result to everybody. Between the group (who is there) and OrderedAllReduce (who drives, and when).
//
// Thread-safety: none; driven by one thread at a time. An error is final.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "allreduce/group.h"
#include "allreduce/layout.h"
#include "allreduce/tree_sum.h"

namespace lockstep::allreduce {

class Reducer {
 public:
  // Both must outlive the reducer.
  Reducer(const Layout& layout, Group& group);

  // The exchange under way ends after `buckets` buckets since the generation began.
  void BeginExchange(uint64_t exchange, uint64_t buckets) { due_ = {exchange, buckets}; }

  // The buckets before this one are reduced here.
  uint64_t reduced() const { return reduced_; }
  // Reduces the next bucket. `ready`: buckets whose sums are complete here; more than reduced(). With `yield`: false if that
  // became true while waiting; then to be called again.
  absl::StatusOr<bool> ReduceNext(uint64_t ready, const std::atomic<bool>* yield);

  // Waits until everything queued is on its way. False as above.
  absl::StatusOr<bool> Flush(const std::atomic<bool>* yield);

  // Leaves our verdict for the peers; `ready` as above.
  void PostVerdict(std::string_view verdict, bool with_gradients, uint64_t ready);
  // Ends the exchange: all verdicts, by rank. After OK nobody reads or writes our memory, and every bucket's result is in it.
  // Internal: the ranks' exchanges are not of the same kind.
  absl::StatusOr<std::vector<std::string>> FinishExchange();

  // Read from and written to memory shared with peers.
  uint64_t bytes_shared() const { return bytes_shared_; }

 private:
  struct Input {
    const LocalPeer* local = nullptr;  // neither: our own
    const RemotePeer* remote = nullptr;
    size_t subtree = 0;
  };

  void SendSums(uint64_t ready);
  template <typename T>
  void ReduceChunk(uint64_t sequence);
  absl::StatusOr<std::vector<std::string>> CollectVerdicts();

  const Layout& layout_;
  Group& group_;
  const TreeSum tree_;
  std::vector<Input> inputs_;  // by subtree of the whole tree, in order
  std::unique_ptr<std::byte[]> scratch_;
  Group::Due due_;
  uint64_t sums_sent_ = 0;
  uint64_t reduced_ = 0;
  std::string verdict_;  // ours; peers' frames point to it
  bool with_gradients_ = false;
  uint64_t bytes_shared_ = 0;
};

}  // namespace lockstep::allreduce
