#pragma once
// What scripts read: the summary of a run, and a line of the step log. docs/cli.md explains both. Pure functions. Thread-safe.

#include <nlohmann/json.hpp>
#include <string>

#include "client/run_view.h"

namespace lockstep {

// steps epochs images_per_second wall_seconds loss metrics validation state_hash generations memory, and more. A job that ended
// without a result gets the figures of its last committed step.
nlohmann::ordered_json MakeSummary(const RunView& view, const v1::JobStatus& status);

// {"step":1,"epoch":1,"loss":2.3,"state_hash":"…","generation":1}, and with `samples` the paths in batch order; no newline.
std::string StepLogLine(const v1::StepRecord& record, bool samples);

}  // namespace lockstep
