#pragma once
// The world around a coordinator, from one seed: clients, workers that run trainers, and all that can happen to them. One thread, a clock
// that is moved, calls that do not wait. docs/reliability.md says what is checked.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "coordinator/coordinator.h"
#include "coordinator/store.h"
#include "tests/simulation/oracle.h"
#include "worker/reconcile.h"

namespace lockstep::simulation {

// "001/2.0", for traces.
std::string Name(const TrainerKey& key);

struct Tally {
  uint64_t schedules = 0, events = 0, coordinator_crashes = 0, full_disks = 0, worker_crashes = 0, trainer_deaths = 0, parted = 0,
           late_calls = 0;
  uint64_t generations = 0, steps = 0;
  std::map<v1::JobState, uint64_t> jobs_by_end;
};

class World {
 public:
  // `folder`: an empty one of its own.
  World(uint64_t seed, std::string folder, Tally& tally);

  // Plays the schedule. The breach, or nothing.
  std::string Run();
  // What happened, a line each.
  const std::deque<std::string>& trace() const { return trace_; }

 private:
  enum class State { kPlanning, kLoading, kAsking, kMeeting, kTraining, kFinished, kConcluding, kEnded };
  struct Trainer {
    TrainerKey key;
    std::string worker;
    State state = State::kLoading;
    v1::TrainerOrder order;  // of the generation that it is of
    bool equal = false;      // with the others of it
    bool reported = false;   // its end
    int exit_code = 0, signal = 0;
    uint64_t step = 0, durable = 0;
    uint64_t newest = 0;
    bool cancel = false, pause = false;
    bool ended = false;  // its steps, at a boundary, for the reason that is its ending
    v1::JobState ending = v1::DONE;
    uint64_t total = 0;
    std::vector<uint32_t> silent;  // ranks that it cannot hear
  };
  struct Worker {
    std::string id;
    uint32_t slots = 2;
    bool up = true;
    uint64_t stream = 0, sequence = 0;
    std::map<TrainerKey, ActualTrainer> actual;
    std::map<TrainerKey, v1::TrainerOrder> wanted;
    std::set<uint64_t> acknowledged;
  };

  uint64_t Random(uint64_t below) { return random_() % below; }
  bool Parted(const std::string& one, const std::string& other) const {
    return parted_.contains({one, other}) || parted_.contains({other, one});
  }
  bool Chance(uint64_t percent) { return Random(100) < percent; }
  void Trace(const std::string& text);
  void Restart();
  // The call's result counts, unless the coordinator cannot make anything durable: then it is restarted.
  bool Lives(const absl::Status& status);

  void OneEvent(bool faults);
  void Client();
  void Report(Worker& worker, bool faults);
  void Obey(Worker& worker);
  void Fault();
  void Die(Trainer& trainer, int signal);
  void Act(Trainer& trainer);
  void Plan(Trainer& trainer);
  void Ask(Trainer& trainer, bool finished);
  void Meet(Trainer& trainer);
  void TakePlace(Trainer& trainer, const v1::TrainerOrder& order);
  void Train(Trainer& trainer);
  bool Progress(Trainer& trainer, bool all);
  void Conclude(Trainer& trainer);
  void LateCall();
  std::vector<Trainer*> Gang(const Trainer& trainer);
  Trainer* Pick();
  Worker* WorkerOf(const Trainer& trainer);

  std::mt19937_64 random_;
  const std::string folder_;
  Tally& tally_;
  ManualClock clock_;
  CoordinatorOptions options_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Coordinator> coordinator_;
  Oracle oracle_;
  std::vector<Worker> workers_;
  std::vector<std::unique_ptr<Trainer>> trainers_;
  std::map<std::string, std::pair<std::string, v1::Job>> requests_;  // request id → job
  std::map<std::string, std::map<uint64_t, uint64_t>> checkpoints_;  // job → step → durable then
  std::deque<std::function<void()>> late_;
  std::deque<std::string> trace_;
  std::set<std::pair<std::string, std::string>> parted_;  // workers whose trainers cannot hear each other
  bool calm_ = false;
};

}  // namespace lockstep::simulation
