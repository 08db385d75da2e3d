// Who is in a running job: trainers that are lost, those that come to join, those that are not wanted any more. Each change is a
// generation; the processes that stay go on from live state (docs/reliability.md).
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "coordinator/coordinator.h"
#include "coordinator/generation_secret.h"
#include "coordinator/membership.h"
#include "coordinator/scheduler.h"

namespace lockstep {
namespace {

// How long a joiner that is ready waits for others that are still warming up, so that one generation takes them all.
constexpr absl::Duration kJoinTogether = absl::Seconds(5);
// Where a collective broke and all its trainers live: how long a death may take to be told.
constexpr absl::Duration kSettle = absl::Seconds(2);
// A worker whose trainers cannot be reached is avoided for as long as after so many failures, and longer each time: who joins from there in
// vain holds up the others.
constexpr uint32_t kFailuresOfUnreachable = 5;

void Avoid(JobEntry& job, const std::set<uint32_t>& unreachable, absl::Time now) {
  std::set<std::string> here, elsewhere;
  for (const Seat& seat : job.generation->Living()) {
    (unreachable.contains(seat.record.member.rank()) ? here : elsewhere).insert(seat.record.member.worker_id());
  }
  for (const std::string& worker : here) {
    if (elsewhere.contains(worker)) continue;
    JobEntry::Avoided& avoided = job.avoided[worker];
    avoided.until = now + PauseAfter(kFailuresOfUnreachable + avoided.times);
    ++avoided.times;
  }
}

}  // namespace

absl::Status Coordinator::LoseRanks(JobEntry& job, std::set<uint32_t> ranks, const std::string& cause) {
  std::vector<Seat> seats = job.generation->Living();
  std::erase_if(seats, [&](const Seat& seat) { return ranks.contains(seat.record.member.rank()); });
  if (!IsElastic(job) || seats.empty()) return Break(job, cause);
  Draft draft(job.record);
  if (CountDeath(job, cause, options_.most_deaths, draft)) return Commit(job, std::move(draft));
  job.no_joiner_before = std::max(job.no_joiner_before, clock_.Now() + PauseAfter(draft.record.deaths));
  return Regather(job, std::move(draft), std::move(seats), cause);
}

absl::Status Coordinator::Regather(JobEntry& job, Draft draft, std::vector<Seat> seats, const std::string& cause) {
  ASSIGN_OR_RETURN(const Ask ask, AskFor(job));
  // Those who hold records that are not durable yet come first: rank 0 sends them.
  size_t joined = 0;
  for (const Joiner& joiner : job.joiners) {
    if (joiner.ready() && seats.size() < ask.max) seats.push_back(joiner.seat), ++joined;
  }
  GenerationRecord generation;
  ASSIGN_OR_RETURN(generation.secret, MakeSecret());
  generation.number = job.record.next_generation;
  generation.created_unix_ms = NowMs();
  // Once all steps are done nothing is left that few could not do.
  generation.waits = seats.size() < ask.min && !AllStepsDone(job) && !job.generation->finishing;
  for (const Seat& seat : seats) generation.members.push_back(seat.record);
  Number(generation.members, ask.virtual_replicas);
  draft.record.generation = generation.number;
  ++draft.record.next_generation;
  std::string reason =
      generation.waits
          ? absl::StrCat("waiting: ", Replicas(ask.min), " wanted at least, ", seats.size(), " left with the live state: ", cause)
      : joined > 0 ? absl::StrCat("going on with ", Replicas(seats.size()), ", ", joined, " of them new, from live state: ", cause)
                   : absl::StrCat("going on with ", seats.size(), " of ", job.generation->record.members.size(),
                                  " replicas, from live state: ", cause);
  draft.generation = std::move(generation);
  v1::StateChange& change = draft.MoveTo(v1::RUNNING, std::move(reason));
  change.set_total_steps(job.record.total_steps);
  change.set_replicas(static_cast<uint32_t>(seats.size()));
  RETURN_IF_ERROR(Commit(job, std::move(draft)));
  for (size_t rank = 0; rank < seats.size(); ++rank) job.generation->trainers[rank] = std::move(seats[rank].trainer);
  std::erase_if(job.joiners, [&](const Joiner& joiner) {
    return job.generation->RankOf(joiner.seat.record.process_generation, joiner.seat.record.process_rank).has_value();
  });
  job.generation->newcomers = joined;
  if (seats.size() > 1 && !job.generation->record.waits) job.generation->awaited_since = clock_.Now();
  if (joined > 0) LOG_INFO("job=%s generation=%d joined=%d", job.record.id, job.record.generation, joined);
  return absl::OkStatus();
}

absl::Status Coordinator::Grow(JobEntry& job, bool may_start) {
  if (!IsElastic(job) || job.record.pause_wanted || AllStepsDone(job)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Ask ask, AskFor(job));
  const std::vector<Seat> living = job.generation->Living();
  if (living.size() > ask.max) return Shrink(job, ask.max);
  RETURN_IF_ERROR(AdmitJoiners(job));
  if (job.generation->record.waits && living.size() >= ask.min) {
    return Regather(job, Draft(job.record), living, absl::StrCat("at least ", Replicas(ask.min), " wanted"));
  }
  const size_t have = job.generation->Living().size() + job.joiners.size();
  if (!may_start || have >= ask.max || clock_.Now() < job.no_joiner_before) return absl::OkStatus();
  std::vector<Offer> offers = Offers(&job);
  std::erase_if(offers, [&](const Offer& offer) {
    const auto avoided = job.avoided.find(offer.worker_id);
    return avoided != job.avoided.end() && clock_.Now() < avoided->second.until;
  });
  std::vector<MemberRecord> more = PlaceMore(ask, offers, ask.max - static_cast<uint32_t>(have));
  if (more.empty()) return absl::OkStatus();
  Draft draft(job.record);
  for (MemberRecord& record : more) record.process_generation = draft.record.next_generation++;
  RETURN_IF_ERROR(Commit(job, std::move(draft)));
  ++decisions_;
  for (MemberRecord& record : more) {
    LOG_INFO("job=%s joiner=%d worker=%s state=ordered", job.record.id, record.process_generation, record.member.worker_id());
    job.joiners.push_back({{std::move(record), {}}});
  }
  return absl::OkStatus();
}

absl::Status Coordinator::Shrink(JobEntry& job, size_t most) {
  std::vector<Seat> seats = job.generation->Living();
  std::vector<MemberRecord> retired;
  for (size_t i = most; i < seats.size(); ++i) retired.push_back(seats[i].record);
  seats.resize(most);
  RETURN_IF_ERROR(Regather(job, Draft(job.record), std::move(seats), absl::StrCat("at most ", Replicas(most), " wanted")));
  job.retired.insert(job.retired.end(), retired.begin(), retired.end());
  return absl::OkStatus();
}

absl::Status Coordinator::AdmitJoiners(JobEntry& job) {
  if (!IsElastic(job) || AllStepsDone(job)) return absl::OkStatus();
  absl::Time first = absl::InfiniteFuture();
  size_t ready = 0;
  for (const Joiner& joiner : job.joiners) {
    first = std::min(first, joiner.ready_since);
    ready += joiner.ready() ? 1 : 0;
  }
  if (ready == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Ask ask, AskFor(job));
  const Generation& generation = *job.generation;
  const size_t together = generation.Living().size() + ready;
  if (generation.record.waits ? together < ask.min : generation.awaited_since != absl::InfiniteFuture()) return absl::OkStatus();
  if (generation.Living().size() >= ask.max) return absl::OkStatus();
  if (ready < job.joiners.size() && clock_.Now() - first < kJoinTogether) return absl::OkStatus();
  return Regather(job, Draft(job.record), job.generation->Living(), absl::StrCat(Replicas(ready), " joined"));
}

void Coordinator::LoseJoiner(JobEntry& job, const MemberRecord& record, const std::string& cause) {
  std::erase_if(job.joiners, [&](const Joiner& joiner) {
    return joiner.seat.record.process_generation == record.process_generation && joiner.seat.record.process_rank == record.process_rank;
  });
  ++job.failed_joins;
  job.no_joiner_before = clock_.Now() + PauseAfter(job.failed_joins + 1);
  ++decisions_;
  LOG_WARNING("job=%s joiner=%d failed=%d error=\"%s\"", job.record.id, record.process_generation, job.failed_joins, cause);
}

absl::Status Coordinator::WatchBroken(JobEntry& job) {
  Generation& generation = *job.generation;
  const absl::Duration since = clock_.Now() - generation.asked_since;
  std::set<uint32_t> absent;
  const std::set<uint32_t> unmet = generation.meeting.MissingRanks();
  for (const Seat& seat : generation.Living()) {
    const uint32_t rank = seat.record.member.rank();
    // One that waits for the others at the rendezvous will come, too.
    const bool waits = !generation.meeting.complete() && !unmet.contains(rank);
    if (!generation.asked.contains(rank) && !waits) absent.insert(rank);
  }
  // One that computes for long comes once it reaches the collective; a stopped one is killed by its worker meanwhile.
  if (!absent.empty()) {
    if (since <= options_.rendezvous_timeout) return absl::OkStatus();
    return LoseRanks(
        job, absent,
        absl::StrCat(Ranks(absent), " did not leave a generation that broke within ", absl::FormatDuration(options_.rendezvous_timeout)));
  }
  if (since <= kSettle) return absl::OkStatus();
  const std::string cause = absl::StrCat("the collective broke though all trainers live: ", generation.why_asked);
  const uint64_t step = job.latest ? job.latest->step() : 0;
  const std::set<uint32_t> unreachable = UnreachableRanks(generation);
  const bool again = job.record.deaths > 0 && job.record.death_step == step;
  const bool never_met = !unreachable.empty() && *unreachable.begin() + generation.newcomers >= generation.record.members.size();
  if (!unreachable.empty() && (again || never_met)) {
    Avoid(job, unreachable, clock_.Now());
    return LoseRanks(job, unreachable, absl::StrCat(Ranks(unreachable), " cannot be reached; ", cause));
  }
  // Once more with the same members, over new connections.
  return LoseRanks(job, {}, cause);
}

absl::StatusOr<v1::JobStatus> Coordinator::Scale(const std::string& job_id, const v1::Replicas& wanted) {
  absl::MutexLock lock(&mutex_);
  ASSIGN_OR_RETURN(JobEntry * job, Find(job_id));
  const v1::Job& what = job->record.job;
  if (what.kind() == v1::Job::EVALUATE || what.kind() == v1::Job::PREDICT) {
    return absl::InvalidArgumentError(absl::StrCat("job ", job_id, " does not train; only a job that trains can be scaled"));
  }
  if (HasEnded(job->record.state)) {
    return absl::FailedPreconditionError(absl::StrCat("job ", job_id, " has ended: it is ", v1::JobState_Name(job->record.state)));
  }
  if (wanted.min() < 1 || wanted.max() < wanted.min()) {
    return absl::InvalidArgumentError(
        absl::StrCat("replicas: at least ", wanted.min(), " and at most ", wanted.max(), " make no sense together"));
  }
  if (job->record.plan && wanted.min() > job->record.plan->resolved().virtual_replicas()) {
    return absl::InvalidArgumentError(absl::StrCat("replicas: at least ", wanted.min(), " are more than the ",
                                                   job->record.plan->resolved().virtual_replicas(), " virtual replicas of job ", job_id));
  }
  Draft draft(job->record);
  draft.record.scale = wanted;
  draft.Note(wanted.min() == wanted.max() ? absl::StrCat("scaled to ", Replicas(wanted.max()))
                                          : absl::StrCat("scaled to ", wanted.min(), " to ", Replicas(wanted.max())));
  RETURN_IF_ERROR(Commit(*job, std::move(draft)));
  job->no_joiner_before = absl::InfinitePast();
  Schedule();
  return StatusOf(*job);
}

}  // namespace lockstep
