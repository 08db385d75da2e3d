// Trainers as the coordinator sees them: state machines that speak its protocol. What they compute is a function of the step.
#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/testing_cluster.h"
#include "tests/simulation/world.h"

namespace lockstep::simulation {

void World::Plan(Trainer& trainer) {
  const absl::Status status = coordinator_->ReportPlan(PlanOf(trainer.key.job_id, trainer.order.job()));
  if (!Lives(status)) return;
  if (Chance(20)) return;  // the answer is lost, and it is made again
  Trace(absl::StrCat(Name(trainer.key), " planned: ", status.ok() ? "ok" : "refused"));
  trainer.state = State::kEnded;
  WorkerOf(trainer)->actual[trainer.key].ended = true;
}

void World::TakePlace(Trainer& trainer, const v1::TrainerOrder& order) {
  // A joiner of a job whose others have done them all is one, too.
  const bool done = trainer.ended || std::any_of(trainers_.begin(), trainers_.end(), [&](const auto& one) {
                      return one->key.job_id == trainer.key.job_id && one->step >= one->total && one->key.role == v1::TRAIN;
                    });
  oracle_.Placed(order, done);
  if (order.generation() <= trainer.order.generation() && trainer.order.generation() != trainer.key.generation) {
    oracle_.Breach(absl::StrCat(Name(trainer.key), " was sent back to generation ", order.generation()));
  }
  trainer.order = order;
  trainer.equal = false;
  trainer.silent.clear();
  trainer.newest = std::max(trainer.newest, order.generation());
  trainer.state = order.members_size() == 1 ? State::kTraining : State::kMeeting;
}

void World::Ask(Trainer& trainer, bool finished) {
  v1::RegroupRequest request;
  request.set_job_id(trainer.key.job_id);
  request.set_generation(trainer.order.generation());
  request.set_process_generation(trainer.key.generation);
  request.set_process_rank(trainer.key.rank);
  request.set_finished(finished);
  request.set_reason("a peer is gone");
  request.mutable_silent_ranks()->Assign(trainer.silent.begin(), trainer.silent.end());
  const auto order = coordinator_->Regroup(request, absl::ZeroDuration());
  if (!Lives(order.status())) return;
  if (order.ok() && *order) {
    Trace(absl::StrCat(Name(trainer.key), " is rank ", (*order)->rank(), " of generation ", (*order)->generation()));
    return TakePlace(trainer, **order);
  }
  if (!absl::IsFailedPrecondition(order.status())) return;
  Trace(absl::StrCat(Name(trainer.key), " has no place, and ends"));
  trainer.state = State::kEnded;
  WorkerOf(trainer)->actual[trainer.key].ended = true;
}

void World::Meet(Trainer& trainer) {
  if (trainer.newest > trainer.order.generation()) {
    trainer.state = State::kAsking;
    return;
  }
  v1::RendezvousRequest request;
  request.set_job_id(trainer.key.job_id);
  request.set_generation(trainer.order.generation());
  request.set_rank(trainer.order.rank());
  request.mutable_endpoint()->set_address(absl::StrCat(trainer.worker, ":", trainer.key.generation, ":", trainer.key.rank));
  const auto met = coordinator_->Rendezvous(request, absl::ZeroDuration());
  if (!Lives(met.status())) return;
  if (met.ok() && !*met) return;
  if (met.ok()) oracle_.Believed(trainer.key.job_id, trainer.order.generation(), "a rendezvous");
  trainer.state = met.ok() ? State::kTraining : State::kAsking;
}

std::vector<World::Trainer*> World::Gang(const Trainer& trainer) {
  std::vector<Trainer*> gang(static_cast<size_t>(trainer.order.members_size()), nullptr);
  for (const auto& one : trainers_) {
    if (one->key.job_id != trainer.key.job_id || one->order.generation() != trainer.order.generation() || one->state == State::kEnded)
      continue;
    if (one->key.role == v1::TRAIN && one->order.rank() < gang.size() &&
        (one->order.generation() == one->key.generation || one->equal || one->state != State::kLoading)) {
      gang[one->order.rank()] = one.get();
    }
  }
  return gang;
}

bool World::Progress(Trainer& trainer, bool all) {
  v1::ProgressReport report;
  report.set_job_id(trainer.key.job_id);
  report.set_generation(trainer.order.generation());
  // The newest is not agreed on yet where there are others.
  const uint64_t last = all || trainer.order.members_size() == 1 ? trainer.step : std::max(trainer.step, uint64_t{1}) - 1;
  for (uint64_t step = trainer.durable + 1; step <= last; ++step) {
    *report.add_steps() = StepRecordOf(trainer.key.job_id, step, trainer.order.generation());
  }
  if (Chance(5)) {
    late_.push_back([this, report] {
      const auto answer = coordinator_->ReportProgress(report);
      if (answer.ok()) oracle_.Believed(report.job_id(), report.generation(), "progress that comes late");
      if (!absl::IsUnavailable(answer.status())) return;
      Lives(answer.status());
    });
  }
  const auto answer = coordinator_->ReportProgress(report);
  if (!Lives(answer.status())) return false;
  if (absl::IsInvalidArgument(answer.status()) || absl::IsDataLoss(answer.status())) {
    oracle_.Breach(absl::StrCat("records of ", Name(trainer.key), ": ", answer.status().ToString()));
  }
  if (!answer.ok()) return false;
  oracle_.Believed(trainer.key.job_id, trainer.order.generation(), "progress");
  if (Chance(10)) return false;  // the answer is lost
  oracle_.Durable(trainer.key.job_id, answer->durable_step());
  trainer.durable = std::max(trainer.durable, answer->durable_step());
  return true;
}

void World::Train(Trainer& trainer) {
  const std::vector<Trainer*> gang = Gang(trainer);
  const bool whole = std::all_of(gang.begin(), gang.end(), [](const Trainer* one) { return one != nullptr; });
  const bool here = whole && std::all_of(gang.begin(), gang.end(), [](const Trainer* one) { return one->state == State::kTraining; });
  if (!here) {
    // A peer is dead, or has left: the collective breaks; or it has not come yet.
    const bool broken = !whole || std::any_of(gang.begin(), gang.end(), [](const Trainer* one) {
      return one->state == State::kAsking || one->state == State::kFinished || one->state == State::kConcluding;
    });
    if (broken && Chance(60)) trainer.state = State::kAsking;
    return;
  }
  for (const Trainer* one : gang) {
    if (Parted(one->worker, trainer.worker)) trainer.silent.push_back(one->order.rank());
  }
  if (!trainer.silent.empty()) {
    trainer.state = State::kAsking;
    return;
  }
  if (!trainer.equal) {
    const auto furthest = *std::max_element(gang.begin(), gang.end(), [](const Trainer* a, const Trainer* b) { return a->step < b->step; });
    for (Trainer* one : gang) {
      if (one->step < furthest->step) one->step = furthest->step, one->durable = furthest->durable, one->ended = furthest->ended;
      one->equal = true;
    }
  }
  const bool some_ended = std::any_of(gang.begin(), gang.end(), [](const Trainer* one) { return one->ended; });
  if (trainer.step < trainer.total && !some_ended) {
    ++tally_.steps;
    // Some may have committed what others saw break.
    const size_t committed = !calm_ && Chance(5) ? Random(gang.size() + 1) : gang.size();
    for (size_t i = 0; i < committed; ++i) ++gang[i]->step;
    if (committed < gang.size()) {
      for (Trainer* one : gang) one->state = State::kAsking;
      return;
    }
  }
  uint64_t durable = 0, newest = 0;
  bool cancel = false, pause = false;
  for (const Trainer* one : gang) {
    if (one->order.rank() == 0) durable = one->durable;
    newest = std::max(newest, one->newest);
    cancel |= one->cancel;
    pause |= one->pause;
  }
  for (Trainer* one : gang) {
    one->durable = std::max(one->durable, durable);
    const bool done = one->step >= one->total;
    if (done || cancel || pause || some_ended) {
      if (!one->ended) one->ending = done ? v1::DONE : cancel ? v1::CANCELLED : v1::PAUSED;
      one->ended = true;
      one->state = one->order.rank() == 0 ? State::kConcluding : State::kFinished;
    } else if (newest > one->order.generation()) {
      one->state = State::kAsking;
    }
  }
  Trainer& first = *gang[0];
  if (first.state != State::kTraining) return;
  Progress(first, false);
  if (first.step > 0 && Chance(20)) {
    const std::string name = absl::StrFormat("checkpoint-%09d.safetensors", first.step);
    const auto stored = coordinator_->StoreArtifact(first.key.job_id, first.order.generation(), {name, name, 10, kTestDigest});
    if (!Lives(stored.status())) return;
    if (stored.ok()) checkpoints_[first.key.job_id].try_emplace(first.step, first.durable);
  }
}

void World::Conclude(Trainer& trainer) {
  const std::string& job = trainer.key.job_id;
  const uint64_t generation = trainer.order.generation();
  absl::Status status;
  if (trainer.durable < trainer.step && !Progress(trainer, true)) {
    v1::ProgressReport nothing;
    nothing.set_job_id(job);
    nothing.set_generation(generation);
    status = coordinator_->ReportProgress(nothing).status();
    if (!Lives(status) || status.ok()) return;
  }
  if (status.ok()) {
    const std::string name = trainer.ending == v1::PAUSED ? absl::StrFormat("checkpoint-%09d.safetensors", trainer.step) : "trained.keras";
    status = coordinator_->StoreArtifact(job, generation, {name, name, 10, kTestDigest}).status();
    if (!Lives(status)) return;
    if (status.ok() && trainer.ending == v1::PAUSED) checkpoints_[job].try_emplace(trainer.step, trainer.durable);
  }
  if (status.ok()) {
    v1::EndReport end;
    end.set_job_id(job);
    end.set_generation(generation);
    end.set_state(trainer.ending);
    end.mutable_result()->set_steps(trainer.step);
    status = coordinator_->ReportEnd(end);
    if (!Lives(status)) return;
    if (status.ok()) oracle_.Believed(job, generation, "an end");
    if (status.ok() && Chance(20)) return;  // the answer is lost, and it is made again
    if (status.ok()) oracle_.Ended(job, trainer.ending);
  }
  Trace(absl::StrCat(Name(trainer.key), " concludes as ", v1::JobState_Name(trainer.ending), ": ",
                     status.ok() ? "ok" : "another generation"));
  if (!status.ok()) {
    Ask(trainer, true);
    if (trainer.state == State::kMeeting || trainer.state == State::kTraining) {
      trainer.state = trainer.order.rank() == 0 ? State::kConcluding : State::kFinished;
    }
    return;
  }
  trainer.state = State::kEnded;
  WorkerOf(trainer)->actual[trainer.key].ended = true;
}

void World::Act(Trainer& trainer) {
  switch (trainer.state) {
    case State::kPlanning: return Plan(trainer);
    case State::kLoading:
      if (!trainer.order.joins() && trainer.order.checkpoints_size() > 0) {
        const std::string& name = trainer.order.checkpoints(0);
        trainer.step = std::stoull(name.substr(name.find('-') + 1));
        trainer.durable = checkpoints_[trainer.key.job_id][trainer.step];
      }
      trainer.state = trainer.order.joins() ? State::kAsking : trainer.order.members_size() == 1 ? State::kTraining : State::kMeeting;
      return;
    case State::kAsking: return Ask(trainer, false);
    case State::kMeeting: return Meet(trainer);
    case State::kTraining: return Train(trainer);
    case State::kFinished: return Ask(trainer, true);
    case State::kConcluding: return Conclude(trainer);
    case State::kEnded: return;
  }
}

}  // namespace lockstep::simulation
