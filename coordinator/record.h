#pragma once
// What the coordinator knows durably, as plain data: what the store writes, and what a restarted coordinator begins with.

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "proto/cluster.pb.h"
#include "proto/lockstep.pb.h"

namespace lockstep {

struct JobRecord {
  std::string id;
  v1::Job job;             // as submitted
  std::string request_id;  // the client's name for the submission; empty: none
  v1::JobState state = v1::SUBMITTED;
  std::string reason;
  v1::FailureKind failure = v1::NO_FAILURE;
  uint64_t generation = 0;       // the newest that trained; 0: none yet
  uint64_t next_generation = 0;  // the number that the next one gets, planning's included
  uint64_t total_steps = 0;      // 0: not known yet
  bool cancel_wanted = false;
  bool pause_wanted = false;
  // What the user asked for since, in place of what the job says; none: as the job says.
  std::optional<v1::Replicas> scale;
  // Generations broken since one of them committed a step that none had before, and the newest durable step then.
  uint32_t deaths = 0;
  uint64_t death_step = 0;
  std::optional<v1::PlanReport> plan;
  std::optional<v1::Result> result;
  int64_t submitted_unix_ms = 0, started_unix_ms = 0, ended_unix_ms = 0;
};

// A trainer of a generation.
struct MemberRecord {
  v1::Member member;
  uint32_t threads = 1;
  // The order by which its process was started, which is its name between coordinator and worker. In a generation that was formed
  // of the members of another, or of processes that had warmed up before: an older one's.
  uint64_t process_generation = 0;
  uint32_t process_rank = 0;
};

// Planning is a generation of one member with role PLAN.
struct GenerationRecord {
  uint64_t number = 0;
  v1::Role role = v1::TRAIN;
  // Its members keep their state and take no step: they are fewer than the job wants at least.
  bool waits = false;
  std::string secret;
  std::vector<MemberRecord> members;  // by rank
  int64_t created_unix_ms = 0;
};

// Of a job's epochs so many are in memory; the store has all.
inline constexpr size_t kEpochsKept = 20;
inline void KeepEpoch(std::deque<v1::EpochRecord>& epochs, v1::EpochRecord epoch) {
  epochs.push_back(std::move(epoch));
  if (epochs.size() > kEpochsKept) epochs.pop_front();
}

// A job's record is written with each of its steps. The picture is for plans that nobody trains by.
inline void DropPicture(v1::MemoryProfile& profile) {
  profile.clear_timeline_bytes();
  profile.clear_timeline_places();
  profile.clear_places();
}

struct ArtifactRecord {
  std::string name;  // "trained.keras"
  std::string file;  // its name in the job's folder; or the absolute path of a checkpoint that is in the job's own storage
  uint64_t bytes = 0;
  std::string xxh3_128;
};

// What becomes durable together, all or nothing. `job_id` always; the rest where it is set.
struct Change {
  std::string job_id;
  std::optional<JobRecord> job;
  std::vector<v1::Event> events;  // with their sequences
  std::optional<GenerationRecord> generation;
  std::optional<ArtifactRecord> artifact;
  std::vector<std::string> dropped_artifacts;  // their names
};

// Everything about a job that a coordinator holds in memory.
struct StoredJob {
  JobRecord record;
  std::optional<GenerationRecord> generation;  // the newest
  std::vector<ArtifactRecord> artifacts;
  uint64_t last_sequence = 0;
  std::optional<v1::StepRecord> latest;
  std::deque<v1::EpochRecord> epochs;  // the newest kEpochsKept
  std::vector<std::string> notes;
};

inline bool HasEnded(v1::JobState state) {
  return state == v1::REFUSED || state == v1::DONE || state == v1::FAILED || state == v1::CANCELLED;
}

}  // namespace lockstep
