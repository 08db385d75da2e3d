#include "tests/simulation/oracle.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep::simulation {
namespace {

using Edge = std::pair<v1::JobState, v1::JobState>;

// docs/coordinator.md.
bool MayMove(v1::JobState from, v1::JobState to) {
  if (from == to) return !HasEnded(from) || from == v1::JOB_STATE_UNSPECIFIED;
  if (HasEnded(from)) return false;
  if (to == v1::CANCELLED) return true;
  static const std::set<Edge> edges = {{v1::JOB_STATE_UNSPECIFIED, v1::SUBMITTED},
                                       {v1::SUBMITTED, v1::PLANNING},
                                       {v1::PLANNING, v1::SUBMITTED},
                                       {v1::PLANNING, v1::QUEUED},
                                       {v1::PLANNING, v1::REFUSED},
                                       {v1::PLANNING, v1::FAILED},
                                       {v1::PLANNING, v1::PAUSED},
                                       {v1::QUEUED, v1::RUNNING},
                                       {v1::QUEUED, v1::REFUSED},
                                       {v1::QUEUED, v1::PAUSED},
                                       {v1::RUNNING, v1::QUEUED},
                                       {v1::RUNNING, v1::PAUSED},
                                       {v1::RUNNING, v1::DONE},
                                       {v1::RUNNING, v1::FAILED},
                                       {v1::PAUSED, v1::QUEUED}};
  return edges.contains({from, to});
}

}  // namespace

v1::StepRecord StepRecordOf(const std::string& job_id, uint64_t step, uint64_t generation) {
  v1::StepRecord record;
  record.set_step(step);
  record.set_epoch(1);
  record.set_state_hash(absl::StrFormat("%s-%026d", job_id.substr(job_id.size() - 5), step));
  record.set_generation(generation);
  record.set_sample_digest(step * 40503);
  return record;
}

void Oracle::Submitted(const std::string& job_id, const v1::Job& job) {
  JobView& view = jobs_[job_id];
  if (view.job.batch() > 0 && view.job.SerializeAsString() != job.SerializeAsString()) Breach("a submission became another job: " + job_id);
  if (view.job.batch() == 0) view.fewest = job.replicas().min();
  view.job = job;
}

void Oracle::Scaled(const std::string& job_id, uint32_t fewest) { jobs_[job_id].fewest = std::min(jobs_[job_id].fewest, fewest); }

void Oracle::SeeGeneration(const std::string& job_id, uint64_t number, const std::string& secret, const v1::TrainerOrder& order) {
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) return Breach("an order for a job that nobody submitted: " + job_id);
  auto& secrets = found->second.secrets;
  const auto known = secrets.find(number);
  if (known != secrets.end()) {
    if (known->second != secret) Breach(absl::StrCat("generation ", number, " of job ", job_id, " was handed out twice"));
    return;
  }
  if (!secrets.empty() && number < secrets.rbegin()->first) {
    Breach(absl::StrCat("generation ", number, " of job ", job_id, " was first heard of after ", secrets.rbegin()->first));
  }
  secrets[number] = secret;
  if (order.role() != v1::TRAIN) return;
  uint32_t next = 0;
  for (int rank = 0; rank < order.members_size(); ++rank) {
    const v1::Member& member = order.members(rank);
    if (member.rank() != static_cast<uint32_t>(rank) || member.first_virtual_replica() != next || member.virtual_replica_count() == 0) {
      Breach(absl::StrCat("generation ", number, " of job ", job_id, ": its ranks do not share the virtual replicas"));
    }
    next += member.virtual_replica_count();
  }
  if (next != found->second.job.virtual_replicas()) {
    Breach(absl::StrCat("generation ", number, " of job ", job_id, " has ", next, " virtual replicas"));
  }
}

void Oracle::Ordered(const std::string& worker, uint32_t slots, const v1::WorkerOrders& orders) {
  if (orders.trainers_size() > static_cast<int>(slots)) {
    Breach(absl::StrCat("worker ", worker, " has ", slots, " slots, and is ordered ", orders.trainers_size(), " trainers"));
  }
  std::set<std::pair<std::string, std::pair<uint64_t, uint32_t>>> names;
  for (const v1::TrainerOrder& order : orders.trainers()) {
    if (!names.insert({order.job_id(), {order.generation(), order.rank()}}).second) Breach("a process is ordered twice");
    const uint64_t number = order.role() == v1::PLAN ? order.generation() : order.newest_generation();
    SeeGeneration(order.job_id(), number, order.generation_secret(), order);
  }
}

void Oracle::Placed(const v1::TrainerOrder& order, bool done) {
  SeeGeneration(order.job_id(), order.generation(), order.generation_secret(), order);
  if (!done && order.members_size() < static_cast<int>(jobs_[order.job_id()].fewest)) {
    Breach(absl::StrCat("job ", order.job_id(), " goes on with ", order.members_size(), " replicas, and wants ",
                        jobs_[order.job_id()].fewest));
  }
}

void Oracle::Durable(const std::string& job_id, uint64_t step) {
  JobView& view = jobs_[job_id];
  view.durable = std::max(view.durable, step);
}

void Oracle::Ended(const std::string& job_id, v1::JobState state) {
  JobView& view = jobs_[job_id];
  if (HasEnded(view.ended) && view.ended != state) Breach(absl::StrCat("job ", job_id, " ended twice"));
  if (HasEnded(state)) view.ended = state;
}

uint64_t Oracle::NewestGeneration(const std::string& job_id) const {
  const auto found = jobs_.find(job_id);
  return found == jobs_.end() || found->second.secrets.empty() ? 0 : found->second.secrets.rbegin()->first;
}

void Oracle::Believed(const std::string& job_id, uint64_t generation, const char* call) {
  if (generation < NewestGeneration(job_id)) {
    Breach(
        absl::StrCat(call, " of generation ", generation, " of job ", job_id, " was believed; the newest is ", NewestGeneration(job_id)));
  }
}

void Oracle::Follow(const Coordinator& coordinator, const std::string& id, JobView& view) {
  for (;;) {
    const auto page = coordinator.ReadEvents(id, view.sequence, absl::ZeroDuration());
    if (!page.ok()) return Breach(absl::StrCat("events of job ", id, " after ", view.sequence, ": ", page.status().ToString()));
    for (const auto& event : page->events) {
      if (event->sequence() != ++view.sequence)
        return Breach(absl::StrCat("job ", id, ": event ", event->sequence(), " comes as ", view.sequence));
      if (event->has_state()) {
        if (!MayMove(view.state, event->state().state())) {
          return Breach(
              absl::StrCat("job ", id, " went from ", v1::JobState_Name(view.state), " to ", v1::JobState_Name(event->state().state())));
        }
        view.state = event->state().state();
      }
      if (event->has_step()) {
        const v1::StepRecord& step = event->step();
        if (step.step() != ++view.steps)
          return Breach(absl::StrCat("job ", id, ": step ", step.step(), " is recorded as the ", view.steps));
        if (step.state_hash() != StepRecordOf(id, step.step(), 0).state_hash())
          Breach(absl::StrCat("job ", id, ": another step ", step.step()));
      }
    }
    if (page->complete || page->events.empty()) return;
  }
}

void Oracle::Look(const Coordinator& coordinator) {
  for (auto& [id, view] : jobs_) {
    const auto status = coordinator.Describe(id);
    if (!status.ok()) return Breach(absl::StrCat("job ", id, " was acknowledged, and is gone: ", status.status().ToString()));
    Follow(coordinator, id, view);
    if (view.steps < view.durable) Breach(absl::StrCat("job ", id, ": step ", view.durable, " was durable, ", view.steps, " are recorded"));
    if (view.state != status->state()) Breach(absl::StrCat("job ", id, ": its state is not that of its last event"));
    if (HasEnded(view.ended) && status->state() != view.ended)
      Breach(absl::StrCat("job ", id, " had ended, and is ", v1::JobState_Name(status->state())));
  }
}

}  // namespace lockstep::simulation
