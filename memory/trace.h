#pragma once
// A recorded sequence of requests to the pool, and what it says about other micro-batches. Between the pool, which records, and planning,
// which predicts: where two recordings at different micro-batches are the same sequence, the size of each request is affine in the
// micro-batch, so that the sequence can be written for any other of the same regime, and replayed.
//
// A recording belongs to the thread that makes it: what other threads ask for meanwhile is not in it. Traces are plain data. No libtorch.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "memory/category.h"

namespace lockstep::memory {

struct Trace {
  struct Event {
    int32_t block = 0;  // counts requests from 0; a release has that of its request
    bool release = false;
    Category category = Category::kRuntime;
    int32_t place = 0;  // index into `places`: what ran
    int64_t bytes = 0;  // as asked for; of a release 0
    bool operator==(const Event&) const = default;
  };
  std::vector<Event> events;
  std::vector<std::string> places;  // "forward conv1", "backward conv1", …; [0] is ""
};

// Records what the calling thread asks of any pool, and gives back, while this lives. One at a time a thread.
class Recording {
 public:
  Recording();
  ~Recording();
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  // What runs from now on.
  void At(const std::string& place);
  // What ran since the last call of either.
  void EndOf(const std::string& place);
  Trace Take();
  // Events so far.
  size_t size() const { return trace_.events.size(); }
  // The request whose block is at this address; -1: none that is live.
  int32_t BlockAt(const void* address) const;

  // The calling thread's recording, or null.
  static Recording* Current();
  // Of the pool.
  void Requested(const void* block, int64_t bytes, Category category);
  void Released(const void* block);

 private:
  int32_t IndexOf(const std::string& place);

  Trace trace_;
  int32_t place_ = 0;
  size_t place_since_ = 0;  // index of the first event in it
  int32_t requests_ = 0;
  absl::flat_hash_map<std::string, int32_t> index_of_place_;
  absl::flat_hash_map<const void*, int32_t> live_;
};

// What a sequence needs at its worst moment, in live bytes as the pool counts them (BlockPool::BlockSize of each request).
struct Peak {
  int64_t bytes = 0;
  Bytes by_category;
  size_t event = 0;   // the request at which it is reached first
  std::string place;  // what ran then
};
Peak PeakOf(const Trace& trace);
// Live bytes after each event.
std::vector<int64_t> LiveBytes(const Trace& trace);

// The course of it, for a picture: stretches of equally many events, each with its highest live bytes and what ran then.
struct Timeline {
  std::vector<int64_t> bytes;
  std::vector<int> places;  // indices into names
  std::vector<std::string> names;
};
Timeline TimelineOf(const Trace& trace, size_t most_points);

// A sequence for every micro-batch of one regime.
class AffineTrace {
 public:
  // FailedPrecondition: they are not the same sequence, so that the regime changes between them, or a size shrinks as the micro-batch
  // grows. REQUIRES: 0 < small < large.
  static absl::StatusOr<AffineTrace> Fit(const Trace& at_small, int64_t small, const Trace& at_large, int64_t large);

  Trace At(int64_t micro_batch) const;
  // Whether a third recording is what At says.
  absl::Status Check(const Trace& recorded, int64_t micro_batch) const;

 private:
  Trace base_;
  int64_t small_ = 0, span_ = 1;
  std::vector<int64_t> growth_;  // by event, over `span_` samples
};

}  // namespace lockstep::memory
