#pragma once
// Scheduling: which workers run which virtual replicas of a job, as one gang. A pure function over plain data.
//
// As many replicas as allowed and possible. Each goes where it gets the most cores; ranks follow the workers' ids, so that
// replicas of one worker hold neighbouring virtual replicas, and exchange only finished subtrees with others. The runs of
// virtual replicas are contiguous and differ by at most one in length; where the number of replicas divides V they are equal,
// and where both are powers of two each is one subtree.

#include <string>
#include <vector>

#include "coordinator/admission.h"
#include "coordinator/record.h"

namespace lockstep {

struct Decision {
  // By rank; empty: not now.
  std::vector<MemberRecord> members;
  // "running on 2 replicas", or why it must wait.
  std::string reason;
};

// REQUIRES: `workers` sorted by id.
Decision Place(const Ask& ask, const std::vector<Offer>& workers);

// Where a job is planned that takes so many bytes for it: on the worker with the most free slots.
struct PlanningPlace {
  const Offer* worker = nullptr;  // of `workers`; null: not now
  std::string reason;             // then: why it must wait
};
PlanningPlace PlacePlanning(uint64_t bytes, const std::vector<Offer>& workers);

// Where up to `count` further replicas of a job that runs would go; they have no rank yet. REQUIRES: as Place.
std::vector<MemberRecord> PlaceMore(const Ask& ask, const std::vector<Offer>& workers, uint32_t count);

// Gives ranks in the members' order, and each a run of virtual replicas. REQUIRES: at least one, and no more than there are virtual
// replicas.
void Number(std::vector<MemberRecord>& members, uint32_t virtual_replicas);

}  // namespace lockstep
