#pragma once
// Admission: what a job asks of the cluster, by its plan, and whether the workers that are known could ever give it. Pure
// functions over plain data; the reason is text, the same in the log, the answer and the test.

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/cluster.pb.h"

namespace lockstep {

struct Ask {
  uint32_t min = 1, max = 1;  // replicas; min <= max <= virtual_replicas
  uint32_t virtual_replicas = 1;
  uint32_t threads = 0;       // per replica, as the user fixed them; 0: an even share of the worker's cores
  uint32_t most_threads = 1;  // planned side by side
  // Predicted bytes of one trainer's process: with one thread, and for each further one. What is booked: never above the job's own limit,
  // to which it was planned.
  uint64_t base_bytes = 0, bytes_per_thread = 0;
  uint64_t pipeline_bytes = 0;  // of base_bytes
  // What planning knows to make it smaller: the largest batch within so many bytes (0: not known), and remedies that were not applied.
  uint64_t batch = 0, largest_batch = 0, largest_batch_bytes = 0;
  struct Remedy {
    std::string text;
    uint64_t bytes = 0;
  };
  std::vector<Remedy> remedies;

  uint64_t BytesWith(uint32_t with_threads) const { return base_bytes + (with_threads - 1) * bytes_per_thread; }
};

// What a worker has to offer.
struct Offer {
  std::string worker_id;
  std::string address;
  uint32_t cores = 1;
  uint32_t slots = 0, free_slots = 0;
  uint64_t memory_bytes = 0;               // 0: not known, taken as enough
  std::map<std::string, uint64_t> booked;  // predicted bytes of the trainers that it runs, by job; of those that plan, too
  uint32_t own = 0;                        // replicas of the job that asks, which it runs already

  uint64_t BookedBytes() const;
  uint64_t FreeBytes() const { return memory_bytes - std::min(memory_bytes, BookedBytes()); }
};

// From a job that was planned. FailedPrecondition: no number of replicas can satisfy it (more wanted at least than it has
// virtual replicas).
absl::StatusOr<Ask> AskOf(const v1::Job& submitted, const v1::PlanReport& plan);

// What planning a job takes: nobody has predicted it yet, so a bound by the size of its model.
uint64_t PlanningBytes(const v1::Job& submitted);

// Threads that each of `replicas` on one worker gets within `free_bytes` (0 as memory_bytes 0: no bound); 0: they do not fit.
uint32_t ThreadsFor(const Ask& ask, const Offer& offer, uint32_t replicas, uint64_t free_bytes);

// What the workers, idle, lack for a job.
struct Shortage {
  std::string reason;
  bool of_memory = false;  // else of slots
};

// Nothing if the workers, idle, could run the job.
std::optional<Shortage> WhyNever(const Ask& ask, const std::vector<Offer>& workers);

// For a shortage of memory: the changes of the job, or the worker, with which it would run.
std::string WhatWouldFit(const Ask& ask, const std::vector<Offer>& workers);

// For one that waits: what it needs, and of the workers that could run it what is free, and which jobs have the rest.
std::string WhatIsHeld(const Ask& ask, const std::vector<Offer>& workers);

// "900 MiB", "9.1 GiB": rounded up.
std::string BytesText(uint64_t bytes);

}  // namespace lockstep
