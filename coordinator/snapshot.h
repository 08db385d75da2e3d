#pragma once
// The coordinator at one moment, for /metrics and the page. Plain data.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "proto/lockstep.pb.h"

namespace lockstep {

struct Snapshot {
  struct JobFigures {
    v1::JobStatus status;
    v1::PhaseSeconds phases;  // sums over the steps that this coordinator took in
    uint64_t samples = 0;
  };
  std::map<v1::JobState, uint64_t> jobs_by_state;
  std::vector<JobFigures> jobs;  // newest first, a bounded number
  std::vector<v1::WorkerStatus> workers;
  std::map<std::string, uint64_t> booked_bytes;  // by worker's id
  bool durable = true;                           // false: the store is poisoned
};

}  // namespace lockstep
