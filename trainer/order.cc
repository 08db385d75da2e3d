#include "trainer/order.h"

#include <algorithm>

namespace lockstep {
namespace {

template <typename Repeated>
void ToNamed(const NamedValues& values, Repeated* out) {
  for (const auto& [name, value] : values) {
    auto* entry = out->Add();
    entry->set_name(name);
    entry->set_value(value);
  }
}

v1::PhaseSeconds PhasesToProto(const Phases& phases) {
  v1::PhaseSeconds proto;
  proto.set_wait_for_data(phases.wait_for_data);
  proto.set_forward(phases.forward);
  proto.set_backward(phases.backward);
  proto.set_reduce(phases.reduce);
  proto.set_update(phases.update);
  proto.set_total(phases.total);
  return proto;
}

JobKind KindOf(const v1::Job& job) {
  switch (job.kind()) {
    case v1::Job::EVALUATE: return JobKind::kEvaluate;
    case v1::Job::PREDICT: return JobKind::kPredict;
    default: return JobKind::kFit;
  }
}

ImageSpec ToImageSpec(const v1::Image& image) {
  ImageSpec spec;
  spec.height = static_cast<int>(image.height());
  spec.width = static_cast<int>(image.width());
  spec.method = image.method();
  spec.antialias = image.has_antialias() ? image.antialias() : true;
  if (image.has_scale()) spec.scale = image.scale();
  spec.mean.assign(image.mean().begin(), image.mean().end());
  spec.std.assign(image.std().begin(), image.std().end());
  spec.full_decode = image.full_decode();
  return spec;
}

StopEarlySpec ToStopEarly(const v1::StopEarly& stop) {
  StopEarlySpec spec;
  spec.metric = stop.metric();
  spec.patience = static_cast<int>(stop.patience());
  spec.min_delta = stop.min_delta();
  spec.mode = stop.mode();
  spec.restore_best = stop.restore_best();
  spec.start_from_epoch = static_cast<int>(stop.start_from_epoch());
  if (stop.has_baseline()) spec.baseline = stop.baseline();
  return spec;
}

ReduceOnPlateauSpec ToPlateau(const v1::ReduceOnPlateau& plateau) {
  ReduceOnPlateauSpec spec;
  spec.metric = plateau.metric();
  if (plateau.factor() > 0) spec.factor = plateau.factor();
  if (plateau.patience() > 0) spec.patience = static_cast<int>(plateau.patience());
  if (plateau.has_min_delta()) spec.min_delta = plateau.min_delta();
  spec.mode = plateau.mode();
  spec.cooldown = static_cast<int>(plateau.cooldown());
  spec.min_learning_rate = plateau.min_learning_rate();
  return spec;
}

void ReadLength(const v1::Job& job, RunSpec& spec) {
  spec.batch = static_cast<int>(job.batch());
  spec.epochs = job.epochs();
  spec.steps = job.steps();
  spec.seed = job.seed();
  spec.virtual_replicas = static_cast<int>(job.virtual_replicas());
  spec.plan_only = job.plan_only();
  spec.most_replicas = static_cast<int>(std::max({job.replicas().min(), job.replicas().max(), 1u}));
  spec.micro_batch = static_cast<int>(job.micro_batch());
  spec.state_hash_every = static_cast<int>(std::max(job.state_hash_every(), 1u));
}

void ReadData(const v1::Data& data, RunSpec& spec) {
  spec.train_folder = data.train().folder();
  spec.validation_folder = data.validation().folder();
  spec.image = ToImageSpec(data.image());
  spec.drop_last = data.last_batch() == v1::Data::DROP;
  spec.shuffle = !data.no_shuffle();
  spec.skip_bad = data.bad_samples().skip();
  spec.pipeline_bytes = static_cast<int64_t>(data.memory_bytes());
  spec.decode_threads = static_cast<int>(data.decode_threads());
}

using ProtoSegments = google::protobuf::RepeatedPtrField<v1::Recomputation::Segment>;

std::vector<Segment> ToSegments(const ProtoSegments& proto) {
  std::vector<Segment> segments;
  for (const auto& segment : proto) {
    segments.push_back({static_cast<int>(segment.first_call()), static_cast<int>(segment.first_call() + segment.calls()),
                        std::vector<int>(segment.stored_calls().begin(), segment.stored_calls().end()), ToSegments(segment.inner())});
  }
  return segments;
}

Recomputation ToRecomputation(const v1::Recomputation& proto) {
  Recomputation result;
  result.segments = ToSegments(proto.segments());
  result.bytes_per_thread = static_cast<int64_t>(proto.bytes_per_thread());
  result.time_ratio = proto.time_ratio();
  return result;
}

void ReadMemory(const v1::MemoryPolicy& memory, RunSpec& spec) {
  spec.memory_limit = static_cast<int64_t>(memory.limit_bytes());
  spec.remedies = memory.remedies() != "none";
  spec.allows_micro_batch = std::find(memory.allow().begin(), memory.allow().end(), "micro_batch") != memory.allow().end();
  spec.tensor_bytes = static_cast<int64_t>(memory.tensor_bytes());
  spec.step_bytes_per_sample = static_cast<int64_t>(memory.step_bytes_per_sample());
  spec.recompute = ToRecomputation(memory.recompute());
  for (const v1::Recomputation& next : memory.next()) spec.next.push_back(ToRecomputation(next));
}

void ToProto(const std::vector<Segment>& segments, ProtoSegments& proto) {
  for (const Segment& segment : segments) {
    auto* out = proto.Add();
    out->set_first_call(static_cast<uint32_t>(segment.first));
    out->set_calls(static_cast<uint32_t>(segment.end - segment.first));
    for (const int call : segment.stored) out->add_stored_calls(static_cast<uint32_t>(call));
    ToProto(segment.inner, *out->mutable_inner());
  }
}

v1::Recomputation ToProto(const Recomputation& recomputation) {
  v1::Recomputation proto;
  ToProto(recomputation.segments, *proto.mutable_segments());
  proto.set_bytes_per_thread(static_cast<uint64_t>(recomputation.bytes_per_thread));
  proto.set_time_ratio(recomputation.time_ratio);
  return proto;
}

void SetBytes(const memory::Bytes& bytes, google::protobuf::Map<std::string, uint64_t>& out) {
  for (size_t i = 0; i < memory::kCategories; ++i) {
    const auto category = static_cast<memory::Category>(i);
    out[std::string(memory::CategoryName(category))] = static_cast<uint64_t>(std::max<int64_t>(bytes[category], 0));
  }
}

v1::MemoryProfile ToProto(const MemoryProfile& profile) {
  v1::MemoryProfile proto;
  SetBytes(profile.peak, *proto.mutable_bytes_by_category());
  proto.set_peak_bytes(static_cast<uint64_t>(profile.peak_bytes));
  proto.set_bytes_per_further_thread(static_cast<uint64_t>(profile.bytes_per_further_thread));
  proto.set_resident_bytes(static_cast<uint64_t>(profile.resident_bytes));
  proto.set_expected_resident_bytes(static_cast<uint64_t>(profile.expected_resident_bytes));
  proto.set_limit_bytes(static_cast<uint64_t>(profile.limit_bytes));
  proto.set_at_peak(profile.at_peak);
  proto.set_largest_batch(static_cast<uint64_t>(profile.largest_batch));
  for (const MemoryProfile::Remedy& remedy : profile.remedies) {
    v1::Remedy& out = *proto.add_remedies();
    out.set_name(remedy.name);
    out.set_text(remedy.text);
    out.set_resident_bytes(static_cast<uint64_t>(remedy.resident_bytes));
    out.set_time_ratio(remedy.time_ratio);
    out.set_applied(remedy.applied);
    out.set_changes_bits(remedy.changes_bits);
  }
  proto.mutable_timeline_bytes()->Assign(profile.timeline_bytes.begin(), profile.timeline_bytes.end());
  proto.mutable_timeline_places()->Assign(profile.timeline_places.begin(), profile.timeline_places.end());
  for (const std::string& place : profile.places) proto.add_places(place);
  proto.set_threads(static_cast<uint32_t>(profile.threads));
  proto.set_method(profile.method);
  proto.set_device(profile.device == Device::kCuda ? v1::Job::CUDA : v1::Job::CPU);
  if (profile.device == Device::kCuda) {
    SetBytes(profile.host, *proto.mutable_host()->mutable_bytes_by_category());
    proto.mutable_host()->set_resident_bytes(static_cast<uint64_t>(profile.host.Total()));
  }
  return proto;
}

}  // namespace

Placement ToPlacement(const v1::TrainerOrder& order) {
  Placement placement;
  placement.generation = order.generation();
  placement.rank = static_cast<int>(order.rank());
  for (const v1::Member& member : order.members()) {
    const int first = static_cast<int>(member.first_virtual_replica());
    placement.runs.push_back({first, first + static_cast<int>(member.virtual_replica_count())});
  }
  placement.secret = order.generation_secret();
  return placement;
}

RunSpec ToRunSpec(const v1::TrainerStart& start) {
  const v1::TrainerOrder& order = start.order();
  const v1::Job& job = order.job();
  RunSpec spec;
  static_cast<Placement&>(spec) = ToPlacement(order);
  spec.job_id = order.job_id();
  spec.joins = order.joins();
  if (order.silence_ms() > 0) spec.silence_ms = static_cast<int>(order.silence_ms());
  spec.threads = std::max(1, static_cast<int>(order.threads()));
  spec.address = start.address();
  spec.scratch = start.scratch();
  spec.kind = KindOf(job);
  spec.device = job.device() == v1::Job::CUDA ? Device::kCuda : Device::kCpu;
  spec.model_file = job.model().file_name();
  ReadData(job.data(), spec);
  ReadLength(job, spec);
  ReadMemory(job.memory(), spec);
  spec.worker_memory_bytes = static_cast<int64_t>(order.memory_bytes());
  spec.best_metric = job.checkpoint().best();
  spec.best_mode = job.checkpoint().mode();
  spec.checkpoint_steps = job.checkpoint().every_steps();
  spec.checkpoint_seconds = job.checkpoint().every_seconds();
  spec.never_checkpoint = job.checkpoint().never();
  spec.checkpoint_folder = job.checkpoint().folder();
  spec.checkpoints_kept = static_cast<int>(job.checkpoint().keep());
  spec.checkpoints.assign(order.checkpoints().begin(), order.checkpoints().end());
  if (job.has_stop_early()) spec.stop_early = ToStopEarly(job.stop_early());
  if (job.has_reduce_on_plateau()) spec.reduce_on_plateau = ToPlateau(job.reduce_on_plateau());
  spec.optimizer = job.optimizer();
  spec.loss = job.loss();
  spec.metrics.assign(job.metrics().begin(), job.metrics().end());
  if (job.has_learning_rate()) spec.learning_rate = job.learning_rate();
  spec.precision = job.precision();
  spec.log_samples = job.log_samples();
  return spec;
}

v1::MemoryReport ToProto(const MemoryFigures& figures) {
  v1::MemoryReport proto;
  SetBytes(figures.bytes, *proto.mutable_bytes_by_category());
  proto.set_peak_bytes(static_cast<uint64_t>(figures.peak_bytes));
  proto.set_limit_bytes(static_cast<uint64_t>(figures.limit_bytes));
  proto.set_resident_bytes(static_cast<uint64_t>(figures.resident_bytes));
  for (const HighWaterFigures& figure : figures.high_water) {
    v1::HighWater& high = *proto.add_high_water();
    high.set_phase(figure.phase);
    high.set_layer(figure.layer);
    high.set_bytes(static_cast<uint64_t>(figure.bytes));
  }
  return proto;
}

v1::StepRecord ToProto(const StepFigures& figures) {
  v1::StepRecord proto;
  proto.set_step(figures.step);
  proto.set_epoch(figures.epoch);
  proto.set_loss(figures.loss);
  proto.set_state_hash(figures.state_hash);
  ToNamed(figures.metrics, proto.mutable_metrics());
  proto.set_samples(figures.samples);
  for (const std::string& path : figures.sample_paths) proto.add_sample_paths(path);
  *proto.mutable_phases() = PhasesToProto(figures.phases);
  proto.set_images_per_second(figures.images_per_second);
  *proto.mutable_memory() = ToProto(figures.memory);
  proto.mutable_memory()->clear_high_water();  // the status has it; a durable record of every step need not
  proto.set_sample_digest(figures.sample_digest);
  proto.set_committed_unix_us(figures.committed_unix_us);
  for (const LeafUse& leaf : figures.leaves) {
    v1::LeafUse& use = *proto.add_leaves();
    use.mutable_samples()->Assign(leaf.samples.begin(), leaf.samples.end());
    use.mutable_bad()->Assign(leaf.bad.begin(), leaf.bad.end());
    use.set_digest(leaf.digest);
  }
  return proto;
}

v1::EpochRecord ToProto(const EpochFigures& figures) {
  v1::EpochRecord proto;
  proto.set_epoch(figures.epoch);
  proto.set_step(figures.step);
  proto.set_loss(figures.loss);
  ToNamed(figures.metrics, proto.mutable_metrics());
  ToNamed(figures.validation, proto.mutable_validation());
  proto.set_learning_rate(figures.learning_rate);
  proto.set_samples(figures.samples);
  for (const std::string& sample : figures.bad_samples) proto.add_bad_samples(sample);
  proto.set_wall_seconds(figures.wall_seconds);
  return proto;
}

v1::PassRecord ToProto(const PassFigures& figures) {
  v1::PassRecord proto;
  proto.set_batch(figures.batch);
  proto.set_batches(figures.batches);
  if (figures.loss) proto.set_loss(*figures.loss);
  ToNamed(figures.metrics, proto.mutable_metrics());
  proto.set_images_per_second(figures.images_per_second);
  proto.set_wall_seconds(figures.wall_seconds);
  *proto.mutable_memory() = ToProto(figures.memory);
  return proto;
}

v1::Result ToProto(const ResultFigures& figures) {
  v1::Result proto;
  proto.set_steps(figures.steps);
  proto.set_epochs(figures.epochs);
  proto.set_images_per_second(figures.images_per_second);
  proto.set_wall_seconds(figures.wall_seconds);
  proto.set_loss(figures.loss);
  ToNamed(figures.metrics, proto.mutable_metrics());
  ToNamed(figures.validation, proto.mutable_validation());
  proto.set_state_hash(figures.state_hash);
  *proto.mutable_memory() = ToProto(figures.memory);
  proto.set_note(figures.note);
  proto.set_samples(figures.samples);
  return proto;
}

v1::TrainerStatus ToProto(const StatusFigures& figures) {
  v1::TrainerStatus proto;
  proto.set_phase(figures.phase);
  proto.set_step(figures.step);
  proto.set_epoch(figures.epoch);
  proto.set_loss(figures.loss);
  proto.set_images_per_second(figures.images_per_second);
  *proto.mutable_phase_seconds() = PhasesToProto(figures.phase_seconds);
  proto.set_all_reduce_bytes(figures.all_reduce_bytes);
  proto.set_pipeline_bytes(figures.pipeline_bytes);
  proto.set_pipeline_depth(figures.pipeline_depth);
  *proto.mutable_memory() = ToProto(figures.memory);
  proto.set_images(figures.images);
  proto.set_pauses(figures.pauses.count);
  proto.set_pause_seconds(figures.pauses.seconds);
  proto.set_last_pause_seconds(figures.pauses.last_seconds);
  proto.set_out_of_memory_retries(figures.out_of_memory_retries);
  proto.set_refused_allocations(figures.refused_allocations);
  const CheckpointFigures& checkpoint = figures.checkpoint;
  if (checkpoint.written + checkpoint.skipped + checkpoint.failed > 0) {
    v1::CheckpointStatus* out = proto.mutable_checkpoint();
    out->set_step(checkpoint.step);
    out->set_bytes(checkpoint.bytes);
    out->set_seconds(checkpoint.seconds);
    out->set_stall_seconds(checkpoint.stall_seconds);
    out->set_written(checkpoint.written);
    out->set_skipped(checkpoint.skipped);
    out->set_failed(checkpoint.failed);
  }
  return proto;
}

v1::PlanReport ToProto(const PlanOutcome& outcome, const v1::Job& submitted, const std::string& job_id) {
  v1::PlanReport proto;
  proto.set_job_id(job_id);
  for (const std::string& error : outcome.errors) proto.add_errors(error);
  for (const std::string& note : outcome.notes) proto.add_notes(note);
  if (outcome.profile) *proto.mutable_profile() = ToProto(*outcome.profile);
  if (!outcome.errors.empty()) {
    proto.set_failure(outcome.failure == Ending::kOutOfMemory ? v1::OUT_OF_MEMORY : v1::BAD_INPUT);
    return proto;
  }
  const RunSpec& spec = outcome.resolved;
  v1::Job* job = proto.mutable_resolved();
  *job = submitted;
  job->set_virtual_replicas(static_cast<uint32_t>(spec.virtual_replicas));
  job->set_micro_batch(static_cast<uint32_t>(spec.micro_batch));
  job->set_precision(spec.precision);
  job->set_state_hash_every(static_cast<uint32_t>(spec.state_hash_every));
  if (spec.kind == JobKind::kFit) {
    job->mutable_checkpoint()->set_every_steps(spec.checkpoint_steps);
    job->mutable_checkpoint()->set_every_seconds(spec.checkpoint_seconds);
    job->mutable_checkpoint()->set_keep(static_cast<uint32_t>(spec.checkpoints_kept));
  }
  v1::Data* data = job->mutable_data();
  data->set_memory_bytes(static_cast<uint64_t>(spec.pipeline_bytes));
  v1::Image* image = data->mutable_image();
  image->set_height(static_cast<uint32_t>(spec.image.height));
  image->set_width(static_cast<uint32_t>(spec.image.width));
  image->set_method(spec.image.method);
  image->set_antialias(spec.image.antialias);
  image->set_scale(spec.image.scale.value_or(1.0));
  v1::Replicas* replicas = job->mutable_replicas();
  replicas->set_min(std::max(replicas->min(), 1u));
  replicas->set_max(std::max(replicas->max(), replicas->min()));
  if (spec.kind == JobKind::kPredict) replicas->set_min(1), replicas->set_max(1);
  replicas->set_threads(static_cast<uint32_t>(spec.threads));
  v1::MemoryPolicy* memory = job->mutable_memory();
  memory->set_limit_bytes(static_cast<uint64_t>(spec.memory_limit));
  memory->set_tensor_bytes(static_cast<uint64_t>(spec.tensor_bytes));
  memory->set_step_bytes_per_sample(static_cast<uint64_t>(spec.step_bytes_per_sample));
  *memory->mutable_recompute() = ToProto(spec.recompute);
  memory->clear_next();
  for (const Recomputation& next : spec.next) *memory->add_next() = ToProto(next);
  proto.set_total_steps(outcome.total_steps);
  proto.set_train_samples(outcome.train_samples);
  proto.set_validation_samples(outcome.validation_samples);
  return proto;
}

}  // namespace lockstep
