#pragma once
// The rendezvous of one generation: gathers where each rank can be reached, and whether all of them are of one kind (law 1
// holds among equal environments only). Pure state; the coordinator's lock guards it.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/cluster.pb.h"

namespace lockstep {

class Meeting {
 public:
  using Environment = std::map<std::string, std::string>;

  explicit Meeting(size_t ranks) : seats_(ranks) {}

  // Takes a rank in; again for a call made again. FailedPrecondition: its environment differs from a rank's that is here
  // already (the first field that differs is named, with both values). Aborted: everybody had met, and now the rank is
  // elsewhere. InvalidArgument: there is no such rank.
  absl::Status Join(uint32_t rank, const v1::Endpoint& endpoint, const Environment& environment);

  bool complete() const { return missing() == 0; }
  size_t missing() const;
  std::set<uint32_t> MissingRanks() const;
  // By rank. REQUIRES: complete().
  v1::RendezvousResponse Response() const;

 private:
  struct Seat {
    v1::Endpoint endpoint;
    Environment environment;
  };
  std::vector<std::optional<Seat>> seats_;
};

}  // namespace lockstep
