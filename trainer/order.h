#pragma once
// From protos to plain data and back: the only place that knows both. No libtorch.

#include "proto/cluster.pb.h"
#include "trainer/planner.h"
#include "trainer/records.h"
#include "trainer/run_spec.h"

namespace lockstep {

Placement ToPlacement(const v1::TrainerOrder& order);
RunSpec ToRunSpec(const v1::TrainerStart& start);

v1::MemoryReport ToProto(const MemoryFigures& figures);
v1::StepRecord ToProto(const StepFigures& figures);
v1::EpochRecord ToProto(const EpochFigures& figures);
v1::PassRecord ToProto(const PassFigures& figures);
v1::Result ToProto(const ResultFigures& figures);
v1::TrainerStatus ToProto(const StatusFigures& figures);
// `submitted`: the job as it came; the answer's `resolved` is it with every default that planning wrote.
v1::PlanReport ToProto(const PlanOutcome& outcome, const v1::Job& submitted, const std::string& job_id);

}  // namespace lockstep
