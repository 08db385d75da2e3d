#pragma once
// A job, its generation and a worker as the coordinator holds them in memory: what is durable (record.h), and what reports say
// beside it, which a restarted coordinator learns again. Plain state, guarded by the coordinator's lock.

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "coordinator/meeting.h"
#include "coordinator/record.h"

namespace lockstep {

// One rank, as its worker reports it.
struct Trainer {
  bool started = false;
  bool ended = false;  // and it ended well; any other end breaks the generation
  int64_t pid = 0;
  v1::TrainerStatus status;
};

struct Generation {
  GenerationRecord record;
  std::vector<Trainer> trainers;  // by rank
  Meeting meeting;
  // Since when its ranks are awaited at the rendezvous; InfiniteFuture: they are not, as far as this coordinator knows.
  absl::Time awaited_since = absl::InfiniteFuture();
  // Since when trainers ask for a newer generation, because this one's collective broke; InfiniteFuture: none does.
  absl::Time asked_since = absl::InfiniteFuture();

  // Of the process that was started by this order on this worker; none: it is none of this generation's.
  std::optional<uint32_t> RankOf(const std::string& worker_id, uint64_t process_generation, uint32_t process_rank) const {
    for (const MemberRecord& one : record.members) {
      if (one.process_generation == process_generation && one.process_rank == process_rank && one.member.worker_id() == worker_id) {
        return one.member.rank();
      }
    }
    return std::nullopt;
  }

  explicit Generation(GenerationRecord from) : record(std::move(from)), trainers(record.members.size()), meeting(record.members.size()) {}
};

struct JobEntry {
  JobRecord record;
  std::optional<Generation> generation;
  std::map<std::string, ArtifactRecord> artifacts;
  uint64_t last_sequence = 0;
  std::optional<v1::StepRecord> latest;  // without sample paths
  std::vector<v1::EpochRecord> epochs;
  absl::flat_hash_set<std::string> notes;  // said already; replicas and generations repeat each other's
  // The newest events, for those who watch as they happen.
  std::deque<std::shared_ptr<const v1::Event>> tail;
  size_t tail_bytes = 0;
  absl::Time not_before = absl::InfinitePast();  // of the next generation
  absl::Time cancel_since = absl::InfiniteFuture();
  v1::PhaseSeconds phases;  // sums over the steps that this coordinator took in
  uint64_t samples = 0;

  // Whether the generation's trainers are to run.
  bool Active() const {
    if (!generation) return false;
    const v1::JobState state = generation->record.role == v1::PLAN ? v1::PLANNING : v1::RUNNING;
    return record.state == state;
  }
};

struct WorkerEntry {
  v1::WorkerReport report;  // the newest, without its logs
  uint64_t stream = 0;      // the Attend call that it speaks through; 0: none now
  absl::Time last_seen;
  bool lost = false;
  uint64_t reports = 0;  // taken in so far
};

// A decision in the making: the next record of a job, and what is told about it.
struct Draft {
  JobRecord record;
  std::vector<v1::Event> events;
  std::optional<GenerationRecord> generation;
  std::optional<ArtifactRecord> artifact;

  explicit Draft(const JobRecord& from) : record(from) {}
  v1::StateChange& MoveTo(v1::JobState state, std::string reason, v1::FailureKind failure = v1::NO_FAILURE) {
    record.state = state;
    record.reason = reason;
    record.failure = failure;
    v1::StateChange& change = *events.emplace_back().mutable_state();
    change.set_state(state);
    change.set_reason(std::move(reason));
    change.set_failure(failure);
    return change;
  }
  void Note(std::string text) { events.emplace_back().set_note(std::move(text)); }
};

}  // namespace lockstep
