#pragma once
// Jobs and workers as tables and paragraphs for people. Pure functions. Thread-safe.

#include <string>

#include "absl/time/time.h"
#include "proto/lockstep.pb.h"

namespace lockstep {

// A row a job. Ages count up to `now`.
std::string RenderJobs(const v1::ListResponse& jobs, absl::Time now);
// Everything about one.
std::string RenderJob(const v1::JobStatus& status);
std::string RenderWorkers(const v1::ListWorkersResponse& workers, absl::Time now);

}  // namespace lockstep
