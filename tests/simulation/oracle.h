#pragma once
// What must hold whatever happens, kept apart from the coordinator: what it answered "yes" to, and what everybody was told. Not
// thread-safe.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "coordinator/coordinator.h"
#include "proto/cluster.pb.h"
#include "proto/lockstep.pb.h"

namespace lockstep::simulation {

class Oracle {
 public:
  // The first breach; empty: none.
  const std::string& breach() const { return breach_; }
  void Breach(const std::string& text) {
    if (breach_.empty()) breach_ = text;
  }

  // A submission was answered.
  void Submitted(const std::string& job_id, const v1::Job& job);
  // A worker was given its orders.
  void Ordered(const std::string& worker, uint32_t slots, const v1::WorkerOrders& orders);
  // A trainer was given its place; `done`: it has done all steps.
  void Placed(const v1::TrainerOrder& order, bool done);
  // It may train on so many replicas, too.
  void Scaled(const std::string& job_id, uint32_t fewest);
  // Steps up to this one were said to be durable.
  void Durable(const std::string& job_id, uint64_t step);
  // The end of a job was acknowledged.
  void Ended(const std::string& job_id, v1::JobState state);
  // An older generation was believed.
  void Believed(const std::string& job_id, uint64_t generation, const char* call);
  uint64_t NewestGeneration(const std::string& job_id) const;

  // Reads on where it stopped, as a client would that reconnects, and looks at everything.
  void Look(const Coordinator& coordinator);

  struct JobView {
    v1::Job job;
    uint64_t sequence = 0;  // of the last event that was read
    v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
    uint64_t steps = 0;    // recorded
    uint64_t durable = 0;  // acknowledged
    uint32_t fewest = 1;   // replicas that it may train on
    v1::JobState ended = v1::JOB_STATE_UNSPECIFIED;
    std::map<uint64_t, std::string> secrets;                  // of each generation that anybody was told of
    std::map<uint64_t, std::set<uint32_t>> replicas_covered;  // of each, by the members in an order
  };
  const std::map<std::string, JobView>& jobs() const { return jobs_; }

 private:
  void SeeGeneration(const std::string& job_id, uint64_t number, const std::string& secret, const v1::TrainerOrder& order);
  void Follow(const Coordinator& coordinator, const std::string& id, JobView& view);

  std::map<std::string, JobView> jobs_;
  std::string breach_;
};

// As every trainer computes it.
v1::StepRecord StepRecordOf(const std::string& job_id, uint64_t step, uint64_t generation);

}  // namespace lockstep::simulation
