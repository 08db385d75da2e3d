#pragma once
// A generation of a job as the coordinator holds it in memory: what is durable of it, and what its trainers and their workers say
// beside it. Plain state, guarded by the coordinator's lock.

#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/meeting.h"
#include "coordinator/record.h"

namespace lockstep {

// One process, as its worker reports it.
struct Trainer {
  bool started = false;
  bool ended = false;  // and it ended well
  int64_t pid = 0;
  v1::TrainerStatus status;
};

// A trainer in a generation, or on its way into one.
struct Seat {
  MemberRecord record;
  Trainer trainer;
};

// A process that warms up (model, data) while others train. It is forgotten by a restarted coordinator, and then ends.
struct Joiner {
  Seat seat;
  // Since when it waits for its place; InfiniteFuture: it warms up.
  absl::Time ready_since = absl::InfiniteFuture();
  bool ready() const { return ready_since != absl::InfiniteFuture(); }
};

struct Generation {
  GenerationRecord record;
  std::vector<Trainer> trainers;  // by rank
  Meeting meeting;
  // Since when its ranks are awaited at the rendezvous; InfiniteFuture: they are not, as far as this coordinator knows.
  absl::Time awaited_since = absl::InfiniteFuture();
  // Since when trainers ask for a newer generation, because this one's collective broke; InfiniteFuture: none does.
  absl::Time asked_since = absl::InfiniteFuture();
  std::set<uint32_t> asked;                // which ranks do
  std::map<uint32_t, uint32_t> not_heard;  // of which rank how many of them said that they could not hear it
  std::string why_asked;
  size_t newcomers = 0;    // how many of the last ranks were not in the generation before, as far as this coordinator knows
  bool finishing = false;  // all steps are done: nobody has anything to meet for any more

  // Of the process that was started by this order; none: it is none of this generation's.
  std::optional<uint32_t> RankOf(uint64_t process_generation, uint32_t process_rank) const {
    for (const MemberRecord& one : record.members) {
      if (one.process_generation == process_generation && one.process_rank == process_rank) return one.member.rank();
    }
    return std::nullopt;
  }
  // Those that have not ended, in their order.
  std::vector<Seat> Living() const {
    std::vector<Seat> seats;
    for (size_t rank = 0; rank < trainers.size(); ++rank) {
      if (!trainers[rank].ended) seats.push_back({record.members[rank], trainers[rank]});
    }
    return seats;
  }

  explicit Generation(GenerationRecord from) : record(std::move(from)), trainers(record.members.size()), meeting(record.members.size()) {}
};

}  // namespace lockstep
