#pragma once
// What planning found about a job's memory, as people and scripts read it. Pure functions. Thread-safe.

#include <nlohmann/json.hpp>
#include <string>

#include "proto/lockstep.pb.h"

namespace lockstep {

// The most trainers that the job may have, as planned if it is.
uint32_t MostTrainers(const v1::JobStatus& status);

// Memory by category, of a CUDA device and of the host where it is planned for one, in total, per host; what runs at the peak; the largest
// batch; remedies; notes. Lines without the last newline. REQUIRES: it has a profile.
std::string RenderPlan(const v1::JobStatus& status);

// The same, and the profile itself with the course of memory over a step. docs/memory.md has the keys.
nlohmann::ordered_json PlanToJson(const v1::JobStatus& status);

}  // namespace lockstep
