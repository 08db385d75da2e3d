#include "client/run_view.h"

namespace lockstep {

bool HasEnded(v1::JobState state) { return state == v1::REFUSED || state == v1::DONE || state == v1::FAILED || state == v1::CANCELLED; }

void RunView::Apply(const v1::Event& event) {
  last_sequence = event.sequence();
  last_event_at = absl::FromUnixMillis(event.unix_ms());
  switch (event.what_case()) {
    case v1::Event::kState: return ApplyState(event.state());
    case v1::Event::kStep: return ApplyStep(event.step());
    case v1::Event::kEpoch: return ApplyEpoch(event.epoch());
    case v1::Event::kResult: result = event.result(); return;
    case v1::Event::kPass:
      pass = event.pass();
      memory = event.pass().memory();
      return;
    case v1::Event::kNote: notes.push_back(event.note()); return;
    case v1::Event::WHAT_NOT_SET: return;
  }
}

void RunView::ApplyState(const v1::StateChange& change) {
  state = change.state();
  reason = change.reason();
  failure = change.failure();
  if (state != v1::RUNNING) return;
  if (running_since == absl::InfinitePast()) running_since = last_event_at;
  if (change.total_steps() != 0) total_steps = change.total_steps();
  if (change.replicas() != 0) replicas = change.replicas();
  if (total_epochs != 0 && total_steps % total_epochs == 0) steps_per_epoch = total_steps / total_epochs;
}

void RunView::ApplyStep(const v1::StepRecord& record) {
  if (first_step == 0) {
    first_step = record.step();
    first_step_at = last_event_at;
  }
  if (record.epoch() != epoch.epoch) {
    epoch = EpochSoFar();
    epoch.epoch = record.epoch();
  }
  step = record.step();
  generation = std::max(generation, record.generation());
  if (!record.state_hash().empty()) state_hash = record.state_hash();
  last_loss = record.loss();
  samples += record.samples();
  ++epoch.steps;
  const double weight = record.samples();
  epoch.samples += weight;
  epoch.loss_sum += record.loss() * weight;
  epoch.metric_sums.resize(static_cast<size_t>(record.metrics_size()));
  for (int i = 0; i < record.metrics_size(); ++i) {
    auto& [name, sum] = epoch.metric_sums[static_cast<size_t>(i)];
    name = record.metrics(i).name();
    sum += record.metrics(i).value() * weight;
  }
  const double pace = record.images_per_second();
  images_per_second = images_per_second == 0 ? pace : 0.9 * images_per_second + 0.1 * pace;
  if (record.memory().peak_bytes() != 0) memory = record.memory();
}

void RunView::ApplyEpoch(const v1::EpochRecord& record) {
  epochs.push_back(record);
  if (record.epoch() == 1) steps_per_epoch = record.step();
}

std::optional<absl::Duration> RunView::TimeLeft() const {
  if (pass) {
    if (pass->batch() == 0 || pass->batch() > pass->batches()) return std::nullopt;
    return absl::Seconds(pass->wall_seconds() / static_cast<double>(pass->batch()) * static_cast<double>(pass->batches() - pass->batch()));
  }
  if (total_steps <= step || step <= first_step || last_event_at <= first_step_at) return std::nullopt;
  const double per_step = absl::ToDoubleSeconds(last_event_at - first_step_at) / static_cast<double>(step - first_step);
  return absl::Seconds(per_step * static_cast<double>(total_steps - step));
}

}  // namespace lockstep
