#pragma once
// What those who wait at the coordinator are given. Plain data.

#include <cstdint>
#include <memory>
#include <vector>

#include "proto/cluster.pb.h"
#include "proto/lockstep.pb.h"

namespace lockstep {

struct JobEvents {
  std::vector<std::shared_ptr<const v1::Event>> events;
  bool complete = false;  // the job has ended, and these are the last
};

struct VersionedOrders {
  v1::WorkerOrders orders;
  uint64_t version = 0;
};

}  // namespace lockstep
