#include "client/summary.h"

#include <cmath>

#include "client/proto_json.h"
#include "client/render.h"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

Json FiniteOrNull(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

// The result as far as it is known without the trainer's own.
v1::Result ResultSoFar(const RunView& view) {
  v1::Result result;
  result.set_steps(view.step);
  result.set_epochs(static_cast<uint32_t>(view.epochs.size()));
  result.set_images_per_second(view.images_per_second);
  if (view.running_since != absl::InfinitePast()) {
    result.set_wall_seconds(absl::ToDoubleSeconds(view.last_event_at - view.running_since));
  }
  result.set_loss(view.last_loss);
  if (!view.epochs.empty()) {
    *result.mutable_metrics() = view.epochs.back().metrics();
    *result.mutable_validation() = view.epochs.back().validation();
  }
  result.set_state_hash(view.state_hash);
  result.set_samples(view.samples);
  *result.mutable_memory() = view.memory;
  return result;
}

Json NamedToJson(const google::protobuf::RepeatedPtrField<v1::NamedValue>& values) {
  Json json = Json::object();
  for (const v1::NamedValue& value : values) json[value.name()] = FiniteOrNull(value.value());
  return json;
}

Json MemoryToJson(const v1::MemoryReport& memory, const v1::MemoryProfile& predicted) {
  Json json = Json::object();
  json["bytes_by_category"] = ToJson(memory)["bytes_by_category"];
  json["peak"] = memory.peak_bytes();
  json["limit"] = memory.limit_bytes();
  json["resident"] = memory.resident_bytes();
  if (predicted.bytes_by_category().empty()) return json;
  json["predicted_bytes_by_category"] = ToJson(predicted)["bytes_by_category"];
  json["predicted_peak"] = TensorBytes(predicted);
  json["predicted_resident"] = predicted.resident_bytes();
  if (predicted.expected_resident_bytes() > 0) json["expected_resident"] = predicted.expected_resident_bytes();
  return json;
}

}  // namespace

Json MakeSummary(const RunView& view, const v1::JobStatus& status) {
  const v1::Result result = view.result ? *view.result : status.has_result() ? status.result() : ResultSoFar(view);
  Json json = Json::object();
  json["job"] = status.job_id();
  json["state"] = v1::JobState_Name(status.state());
  json["reason"] = status.reason();
  json["steps"] = result.steps();
  json["epochs"] = result.epochs();
  json["images_per_second"] = FiniteOrNull(result.images_per_second());
  json["wall_seconds"] = FiniteOrNull(result.wall_seconds());
  json["loss"] = FiniteOrNull(result.loss());
  json["metrics"] = NamedToJson(result.metrics());
  json["validation"] = NamedToJson(result.validation());
  json["state_hash"] = result.state_hash();
  json["generations"] = std::max(view.generation, status.generation());
  json["memory"] = MemoryToJson(result.memory(), status.profile());
  json["samples"] = result.samples();
  json["replicas"] = view.replicas;
  json["virtual_replicas"] = status.resolved().virtual_replicas();
  json["note"] = result.note();
  json["plan_notes"] = Json(std::vector<std::string>(status.plan_notes().begin(), status.plan_notes().end()));
  json["history"] = Json::array();
  for (const v1::EpochRecord& epoch : view.epochs) json["history"].push_back(ToJson(epoch));
  return json;
}

std::string StepLogLine(const v1::StepRecord& record, bool samples) {
  Json json = Json::object();
  json["step"] = record.step();
  json["epoch"] = record.epoch();
  json["loss"] = FiniteOrNull(record.loss());
  json["state_hash"] = record.state_hash();
  json["generation"] = record.generation();
  if (samples) json["samples"] = std::vector<std::string>(record.sample_paths().begin(), record.sample_paths().end());
  // Paths need not be UTF-8.
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace lockstep
