#include "worker/metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Label = ClientMetric::Label;
using Labels = std::vector<Label>;

void Add(MetricFamily* family, Labels labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  // A family reads one of the two, by its type.
  metric.counter.value = value;
  metric.gauge.value = value;
  family->metric.push_back(std::move(metric));
}

Labels LabelsOf(const v1::TrainerReport& trainer, std::initializer_list<Label> more = {}) {
  Labels labels = {{"job", trainer.job_id()}, {"rank", absl::StrCat(trainer.rank())}};
  labels.insert(labels.end(), more);
  return labels;
}

struct TrainerMetric {
  const char* name;
  const char* help;
  MetricType type;
  double (*value)(const v1::TrainerStatus& status);
};

constexpr TrainerMetric kTrainerMetrics[] = {
    {"lockstep_trainer_steps_total", "Steps that this trainer committed", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.step()); }},
    {"lockstep_trainer_epoch", "Pass over the training data; 1 is the first", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.epoch()); }},
    {"lockstep_trainer_loss", "Mean loss of the newest committed step", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return status.loss(); }},
    {"lockstep_trainer_images_per_second", "Samples per second of the whole job at the newest step", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return status.images_per_second(); }},
    {"lockstep_trainer_images_total", "Samples of the whole job in committed steps", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.images()); }},
    {"lockstep_trainer_all_reduce_bytes_total", "Bytes that went between this trainer and its peers", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.all_reduce_bytes()); }},
    {"lockstep_trainer_pipeline_bytes", "Bytes that the input pipeline holds", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.pipeline_bytes()); }},
    {"lockstep_trainer_pipeline_depth", "Batches that the input pipeline has ready", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.pipeline_depth()); }},
    {"lockstep_trainer_checkpoints_total", "Checkpoints that this trainer wrote and that were kept", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.checkpoint().written()); }},
    {"lockstep_trainer_checkpoints_skipped_total", "Checkpoints left out because the one before was still on its way", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.checkpoint().skipped()); }},
    {"lockstep_trainer_checkpoints_failed_total", "Checkpoints that could not be kept", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.checkpoint().failed()); }},
    {"lockstep_trainer_checkpoint_step", "Step of the newest checkpoint that was kept", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.checkpoint().step()); }},
    {"lockstep_trainer_checkpoint_seconds", "From the beginning of the newest checkpoint until it was kept", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return status.checkpoint().seconds(); }},
    {"lockstep_trainer_checkpoint_stall_seconds_total", "That steps waited for copies of the state", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return status.checkpoint().stall_seconds(); }},
    {"lockstep_trainer_pauses_total", "Changes of the generation that this trainer went through", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.pauses()); }},
    {"lockstep_trainer_pause_seconds_total", "That no step was taken for changes of the generation", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return status.pause_seconds(); }},
    {"lockstep_trainer_last_pause_seconds", "That no step was taken for the newest change of the generation", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return status.last_pause_seconds(); }},
    {"lockstep_trainer_out_of_memory_retries_total", "Steps and passes that ran out of memory and were taken again", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.out_of_memory_retries()); }},
    {"lockstep_trainer_refused_allocations_total", "Requests for tensor memory that were refused", MetricType::Counter,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.refused_allocations()); }},
    {"lockstep_trainer_memory_peak_bytes", "Highest total of tensor memory so far", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.memory().peak_bytes()); }},
    {"lockstep_trainer_memory_limit_bytes", "Limit of tensor memory; 0: none", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.memory().limit_bytes()); }},
    {"lockstep_trainer_resident_bytes", "Resident bytes of the trainer's process", MetricType::Gauge,
     [](const v1::TrainerStatus& status) { return static_cast<double>(status.memory().resident_bytes()); }},
};

MetricFamily PhaseSeconds(const std::vector<v1::TrainerReport>& running) {
  MetricFamily family{"lockstep_trainer_phase_seconds_total", "Seconds of all steps by phase", MetricType::Counter, {}};
  for (const v1::TrainerReport& trainer : running) {
    const v1::PhaseSeconds& seconds = trainer.status().phase_seconds();
    Add(&family, LabelsOf(trainer, {{"phase", "wait_for_data"}}), seconds.wait_for_data());
    Add(&family, LabelsOf(trainer, {{"phase", "forward"}}), seconds.forward());
    Add(&family, LabelsOf(trainer, {{"phase", "backward"}}), seconds.backward());
    Add(&family, LabelsOf(trainer, {{"phase", "reduce"}}), seconds.reduce());
    Add(&family, LabelsOf(trainer, {{"phase", "update"}}), seconds.update());
  }
  return family;
}

MetricFamily MemoryByCategory(const std::vector<v1::TrainerReport>& running) {
  MetricFamily family{"lockstep_trainer_memory_bytes", "Bytes by category", MetricType::Gauge, {}};
  for (const v1::TrainerReport& trainer : running) {
    for (const auto& [category, bytes] : trainer.status().memory().bytes_by_category()) {
      Add(&family, LabelsOf(trainer, {{"category", category}}), static_cast<double>(bytes));
    }
  }
  return family;
}

MetricFamily HighWater(const std::vector<v1::TrainerReport>& running) {
  MetricFamily family{
      "lockstep_trainer_memory_high_water_bytes", "Highest total of tensor memory in a phase, and what ran then", MetricType::Gauge, {}};
  for (const v1::TrainerReport& trainer : running) {
    for (const v1::HighWater& high : trainer.status().memory().high_water()) {
      Add(&family, LabelsOf(trainer, {{"phase", high.phase()}, {"layer", high.layer()}}), static_cast<double>(high.bytes()));
    }
  }
  return family;
}

MetricFamily Single(const char* name, const char* help, MetricType type, double value) {
  MetricFamily family{name, help, type, {}};
  Add(&family, {}, value);
  return family;
}

MetricFamily EndedByReason(const TrainerCounts& counts) {
  MetricFamily family{"lockstep_worker_trainers_ended_total", "Trainers that ended, by reason", MetricType::Counter, {}};
  Add(&family, {{"reason", "done"}}, static_cast<double>(counts.done));
  Add(&family, {{"reason", "failed"}}, static_cast<double>(counts.failed));
  Add(&family, {{"reason", "crashed"}}, static_cast<double>(counts.crashed));
  Add(&family, {{"reason", "silent"}}, static_cast<double>(counts.silent));
  Add(&family, {{"reason", "stopped"}}, static_cast<double>(counts.stopped));
  Add(&family, {{"reason", "not_started"}}, static_cast<double>(counts.not_started));
  return family;
}

}  // namespace

std::string MetricsText(const WorkerFigures& figures) {
  std::vector<MetricFamily> families;
  for (const TrainerMetric& metric : kTrainerMetrics) {
    MetricFamily family{metric.name, metric.help, metric.type, {}};
    for (const v1::TrainerReport& trainer : figures.running) Add(&family, LabelsOf(trainer), metric.value(trainer.status()));
    families.push_back(std::move(family));
  }
  families.push_back(PhaseSeconds(figures.running));
  families.push_back(MemoryByCategory(figures.running));
  families.push_back(HighWater(figures.running));
  families.push_back(
      Single("lockstep_worker_trainers_running", "Trainers that run now", MetricType::Gauge, static_cast<double>(figures.running.size())));
  families.push_back(Single("lockstep_worker_trainers_started_total", "Trainers that were started", MetricType::Counter,
                            static_cast<double>(figures.counts.started)));
  families.push_back(EndedByReason(figures.counts));
  families.push_back(Single("lockstep_worker_connected", "1 while the coordinator answers", MetricType::Gauge, figures.connected ? 1 : 0));
  families.push_back(Single("lockstep_process_resident_bytes", "Resident bytes of the worker's process", MetricType::Gauge,
                            static_cast<double>(figures.resident_bytes)));
  MetricFamily info{"lockstep_worker_info", "1; which worker this is", MetricType::Gauge, {}};
  Add(&info, {{"worker_id", figures.worker_id}, {"version", LOCKSTEP_VERSION}}, 1);
  families.push_back(std::move(info));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace lockstep
