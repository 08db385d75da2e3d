#pragma once
// Who asks the pool for memory: a replica's threads, in a step, while a layer runs; and what became of the requests that were refused.
// Between the trainer, which says who and where, and the pool, which says what. No libtorch.
//
// A refusal counts even where a library swallows the error and goes another way: the bits may differ then.
//
// For drills, request k of rank r in step s fails, once in all processes and however often the step is taken again:
//
//   LOCKSTEP_FAIL_ALLOCATION=RANK:STEP:K,…   with LOCKSTEP_FAILPOINT_DIR, as base/failpoint.h; counted from 1 since the step began, until
//                                            the next one does: what validation asks for is part of the step before
//
// What belongs to no replica's step (a thread that writes a checkpoint, planning) has no Requests.

#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "memory/category.h"

namespace lockstep::memory {

// A request that was refused, and what was live at that moment.
struct Refusal {
  int64_t bytes = 0;  // asked for
  Category category = Category::kRuntime;
  std::string place;                                    // as Text(CurrentPlace())
  int64_t limit_bytes = 0;                              // 0: none but the machine's, or the drill's
  int64_t missing_bytes = 0;                            // how much higher the limit would have to be; 0: not the limit refused it
  Bytes live;                                           // by category
  std::vector<std::pair<std::string, int64_t>> layers;  // live bytes by the layer that ran when they were asked for, the largest first

  // "forward conv1 asked for 1.5 MiB of activations with 30.1 MiB in use of 31.0 MiB".
  std::string Text() const;
  // "activations 20.0 MiB, parameters 10.1 MiB; largest layers: conv1 15.0 MiB, conv2 4.0 MiB".
  std::string LiveText(size_t most_layers) const;
};

// Of one replica. Thread-safe, but Begin only while none of its threads asks.
class Requests {
 public:
  // The step begins, perhaps again. Step 0 is what comes before the first.
  void Begin(int rank, uint64_t step);

  struct Refused {
    int64_t count = 0;
    std::optional<Refusal> first;
  };
  // Those since the last call.
  Refused TakeRefused();

  // The calling thread's, or null.
  static Requests* Current();
  // Of the pool.
  bool NextMustFail();
  void Add(Refusal refusal);

 private:
  int rank_ = -1;
  uint64_t step_ = 0;
  std::atomic<uint64_t> count_ = 0;  // only while something must fail
  absl::Mutex mutex_;
  Refused refused_ ABSL_GUARDED_BY(mutex_);
};

// Sets the calling thread's for a scope; null is fine. It must outlive the scope.
class ScopedRequests {
 public:
  explicit ScopedRequests(Requests* requests);
  ~ScopedRequests();
  ScopedRequests(const ScopedRequests&) = delete;
  ScopedRequests& operator=(const ScopedRequests&) = delete;

 private:
  Requests* const previous_;
};

struct FailingRequest {
  int rank = 0;
  uint64_t step = 0;
  uint64_t request = 1;
};
// For tests of one process: in place of what the environment says. Each fires once.
void SetFailingRequests(std::vector<FailingRequest> failing);
// How many have not fired.
size_t FailingRequestsLeft();

}  // namespace lockstep::memory
