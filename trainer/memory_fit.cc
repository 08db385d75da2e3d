#include "trainer/memory_fit.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allreduce/leaf_sums.h"
#include "allreduce/ordered_allreduce.h"
#include "base/status_macros.h"
#include "memory/replay.h"
#include "trainer/chosen_segments.h"
#include "trainer/largest_batch.h"

namespace lockstep {
namespace {

using memory::Category;

// What the pool keeps beyond its highest moment, where it may.
constexpr int64_t kSlackBytes = 32 << 20;
// Of what the pool and the C heap keep, what was seen of models of keras.applications.
constexpr int64_t kHeapExpectedBytes = 10 << 20;
// How often a choice that turned out to take more is made again, for less.
constexpr int kAttempts = 3;

std::string AtATime(int threads) { return threads == 1 ? "one virtual replica" : absl::StrCat(threads, " virtual replicas"); }

std::string Size(int64_t bytes) { return absl::StrFormat("%.1f MiB", static_cast<double>(bytes) / (1 << 20)); }

}  // namespace

MemoryFit::MemoryFit(RunSpec& spec, Trial& trial, const CallGraph& graph, MemoryAround around)
    : spec_(spec),
      trial_(trial),
      graph_(graph),
      around_(around),
      limit_(spec.memory_limit > 0 ? spec.memory_limit : spec.worker_memory_bytes),
      threads_(spec.threads) {}

int64_t MemoryFit::ExchangeBytes(int threads, int replicas, int64_t* of_gradients) const {
  if (spec_.kind != JobKind::kFit) return 0;
  const allreduce::Layout& layout = trial_.gradients();
  int64_t most = 0;
  for (int ranks = replicas; ranks <= MostReplicas(); ++ranks) {
    allreduce::Membership membership{0, spec_.virtual_replicas, allreduce::EvenRuns(spec_.virtual_replicas, ranks), 0};
    const allreduce::MemoryNeed need = allreduce::PredictMemory(membership, layout, std::vector<bool>(static_cast<size_t>(ranks), false));
    const int leaves = membership.runs[0].size();
    const auto runs = allreduce::EvenRuns(leaves, std::clamp(threads, 1, leaves));
    const int lanes = allreduce::LeafSums<float>::CountLanes(spec_.virtual_replicas, runs);
    const auto own = static_cast<int64_t>(need.shared + static_cast<size_t>(lanes) * layout.bytes());
    // Of each peer of the same host, the chunk that this rank reads and writes.
    const auto others = static_cast<int64_t>(need.receive + need.shared * static_cast<size_t>(ranks - 1) / static_cast<size_t>(ranks));
    if (own + others <= most) continue;
    most = own + others;
    if (of_gradients != nullptr) *of_gradients = own;
  }
  return most;
}

memory::Bytes MemoryFit::BytesOf(const Setting& setting, const memory::Bytes& step) const {
  memory::Bytes bytes = trial_.state();
  for (size_t i = 0; i < memory::kCategories; ++i) {
    const auto category = static_cast<Category>(i);
    bytes[category] += setting.threads * step[category];
  }
  int64_t gradients = 0;
  const int64_t exchange = ExchangeBytes(setting.threads, 1, &gradients);
  bytes[Category::kGradients] += gradients;
  bytes[Category::kCommunication] += exchange - gradients;
  if (spec_.keeps_checkpoints()) bytes[Category::kCheckpointCopies] += trial_.state_bytes();
  if (spec_.kind == JobKind::kFit) bytes[Category::kCheckpointCopies] += trial_.largest_variable_bytes();
  bytes[Category::kInputPipeline] += setting.pipeline_bytes;
  bytes[Category::kRuntime] += runtime_bytes_;
  bytes[Category::kAllocatorSlack] += kHeapSlackBytes;
  // The pool's gives way to a limit.
  bytes[Category::kAllocatorSlack] += limit_ > 0 ? std::clamp<int64_t>(limit_ - bytes.Total(), 0, kSlackBytes) : kSlackBytes;
  return bytes;
}

bool MemoryFit::WillCopyState(double seconds_per_step) const {
  if (!spec_.keeps_checkpoints()) return false;
  if (spec_.checkpoint_steps > 0) return around_.total_steps >= spec_.checkpoint_steps;
  return static_cast<double>(around_.total_steps) * seconds_per_step >= static_cast<double>(spec_.checkpoint_seconds);
}

int64_t MemoryFit::Expected(const Setting& setting, const memory::Trace& step, int64_t step_bytes) const {
  const double seconds_per_sample = plain_.seconds_per_sample() * setting.recompute.time_ratio;
  const int computing = setting.threads * MostReplicas();
  const int64_t copy = WillCopyState(seconds_per_sample * spec_.batch / computing) ? trial_.state_bytes() : 0;
  const int64_t state = trial_.state().Total();
  // The model is written when no step is taken.
  const int64_t variable = spec_.kind == JobKind::kFit ? trial_.largest_variable_bytes() : 0;
  const int64_t tensors = state + copy + std::max(setting.threads * step_bytes, variable);
  int64_t expected = tensors + memory::KeptBeyondPeak(step, state, copy);
  // What the pool keeps gives way to the limit of tensors.
  const int64_t exchange = ExchangeBytes(setting.threads, MostReplicas(), nullptr);
  if (limit_ > 0) expected = std::clamp(limit_ - runtime_bytes_ - kHeapSlackBytes - setting.pipeline_bytes - exchange, tensors, expected);
  return expected + exchange + runtime_bytes_ + kHeapExpectedBytes +
         around_.expected_pipeline_bytes(setting.pipeline_bytes, setting.threads, seconds_per_sample);
}

int64_t MemoryFit::Total(const Setting& setting) const {
  const memory::Bytes around = BytesOf(setting, {});
  return around.Total() - around[Category::kAllocatorSlack] + kHeapSlackBytes + setting.threads * setting.recompute.bytes_per_thread;
}

int64_t MemoryFit::Beyond(int64_t micro_batch, const memory::PassCosts& costs) const {
  return plain_.PeakAt(micro_batch).bytes - memory::CostOf(costs, {}).bytes;
}

absl::Status MemoryFit::RecordPlain() {
  ASSIGN_OR_RETURN(plain_, trial_.Record({}));
  chosen_ = plain_;
  runtime_bytes_ = around_.runtime_bytes();
  return absl::OkStatus();
}

absl::StatusOr<Recomputation> MemoryFit::Recorded(const memory::Choice& choice) {
  Recomputation recomputation = ToRecomputation(choice);
  ASSIGN_OR_RETURN(RecordedPass pass, trial_.Record(recomputation.segments));
  recomputation.bytes_per_thread = pass.PeakAt(spec_.micro_batch).bytes;
  chosen_ = std::move(pass);
  return recomputation;
}

absl::StatusOr<Recomputation> MemoryFit::Recompute(int64_t bytes) {
  const memory::PassCosts costs = Costs(spec_.micro_batch);
  int64_t target = bytes - Beyond(spec_.micro_batch, costs);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::optional<memory::Choice> choice = memory::ChooseSegments(costs, target);
    if (!choice) break;
    ASSIGN_OR_RETURN(const Recomputation recomputation, Recorded(*choice));
    if (recomputation.bytes_per_thread <= bytes) return recomputation;
    target -= recomputation.bytes_per_thread - bytes + bytes / 200;
  }
  ASSIGN_OR_RETURN(Recomputation least, Recorded(plain_.FewestBytesAt(spec_.micro_batch, graph_)));
  if (least.bytes_per_thread <= bytes) return least;
  return absl::NotFoundError(absl::StrCat(least.bytes_per_thread));
}

absl::Status MemoryFit::Apply(Setting& setting) {
  while (setting.threads > 1 && Total(setting) > limit_) --setting.threads;
  if (setting.threads < threads_) {
    Add("threads", absl::StrCat(AtATime(setting.threads), " at a time instead of ", threads_), setting, true);
  }
  if (Total(setting) > limit_ && setting.pipeline_bytes > around_.least_pipeline_bytes) {
    const int64_t before = setting.pipeline_bytes;
    setting.pipeline_bytes = std::max(around_.least_pipeline_bytes, before - (Total(setting) - limit_));
    Add("pipeline", absl::StrCat("an input pipeline of ", Size(setting.pipeline_bytes), " instead of ", Size(before)), setting, true);
  }
  if (Total(setting) <= limit_) return absl::OkStatus();
  if (spec_.kind == JobKind::kFit) {
    absl::StatusOr<Recomputation> recompute = Recompute(Left(setting));
    if (recompute.ok()) {
      setting.recompute = *std::move(recompute);
      Add("recompute", ComputedAgainText(setting.recompute, graph_.calls.size()), setting, true);
      return absl::OkStatus();
    }
    if (!absl::IsNotFound(recompute.status())) return recompute.status();
    setting.recompute.bytes_per_thread = chosen_.PeakAt(spec_.micro_batch).bytes;
    Add("recompute", "as much as possible computed again in backward", setting, false);
  }
  return spec_.allows_micro_batch ? MakeMicroBatchSmaller(setting) : Refuse(setting);
}

absl::Status MemoryFit::MakeMicroBatchSmaller(Setting& setting) {
  const int before = spec_.micro_batch;
  while (spec_.micro_batch > 1) {
    spec_.micro_batch = (spec_.micro_batch + 1) / 2;
    RETURN_IF_ERROR(RecordPlain());
    setting.recompute = {};
    setting.recompute.bytes_per_thread = plain_.PeakAt(spec_.micro_batch).bytes;
    if (Total(setting) > limit_ && spec_.kind == JobKind::kFit) {
      absl::StatusOr<Recomputation> recompute = Recompute(Left(setting));
      if (recompute.ok()) setting.recompute = *std::move(recompute);
      if (!recompute.ok() && !absl::IsNotFound(recompute.status())) return recompute.status();
    }
    if (Total(setting) > limit_) continue;
    Add("micro_batch", absl::StrCat("micro-batches of ", spec_.micro_batch, " samples instead of ", before, ", which changes the bits"),
        setting, true);
    profile_.remedies.back().changes_bits = true;
    return absl::OkStatus();
  }
  return Refuse(setting);
}

void MemoryFit::Add(const char* name, std::string text, const Setting& setting, bool applied) {
  MemoryProfile::Remedy& remedy = profile_.remedies.emplace_back();
  remedy.name = name;
  remedy.text = std::move(text);
  remedy.resident_bytes = Total(setting);
  remedy.time_ratio = setting.recompute.time_ratio * threads_ / setting.threads;
  remedy.applied = applied;
  if (applied) {
    notes_.push_back(
        absl::StrCat("memory: ", remedy.text, ", to stay within ", limit_, " bytes",
                     remedy.time_ratio > 1.005 ? absl::StrFormat("; a step takes about %.2f times as long", remedy.time_ratio) : ""));
  }
}

void MemoryFit::PlanNext(const Setting& setting) {
  spec_.next.clear();
  if (spec_.kind != JobKind::kFit || !spec_.remedies || !plain_.extends()) return;
  const memory::PassCosts costs = Costs(spec_.micro_batch);
  spec_.next = SmallerChoices(costs, setting.recompute.bytes_per_thread, Beyond(spec_.micro_batch, costs),
                              plain_.FewestBytesAt(spec_.micro_batch, graph_));
}

int64_t MemoryFit::BytesPerSample(const Setting& setting) const {
  const int64_t samples = spec_.micro_batch, half = samples / 2;
  if (!plain_.extends() || half == 0) return 0;
  const Recomputation& furthest = spec_.next.empty() ? setting.recompute : spec_.next.back();
  const auto bytes = [&](int64_t some) { return plain_.AboutWith(furthest.segments, some, graph_); };
  return std::max<int64_t>((bytes(samples) - bytes(half)) / (samples - half), 0);
}

void MemoryFit::ListFurther(Setting setting) {
  if (!spec_.remedies) return;
  if (setting.threads > 1) {
    setting.threads = 1;
    Add("threads", absl::StrCat(AtATime(1), " at a time instead of ", threads_), setting, false);
  }
  if (setting.pipeline_bytes > around_.least_pipeline_bytes) {
    setting.pipeline_bytes = around_.least_pipeline_bytes;
    Add("pipeline", absl::StrCat("an input pipeline of ", Size(setting.pipeline_bytes)), setting, false);
  }
  for (const Recomputation& next : spec_.next) {
    setting.recompute = next;
    Add("recompute", absl::StrCat(ComputedAgainText(next, graph_.calls.size()), " (about)"), setting, false);
  }
}

void MemoryFit::FindLargestBatch(Setting setting, bool refused) {
  if (spec_.remedies) {
    setting.threads = 1;
    setting.pipeline_bytes = std::min(setting.pipeline_bytes, around_.least_pipeline_bytes);
  }
  // What the runtime takes differs by a few MiB from process to process: the answer is to hold for another, too.
  LargestBatch largest(spec_, trial_, graph_, Left(setting) * 99 / 100, around_.pipeline_bytes_per_sample);
  // What was recorded last where nothing fits.
  profile_.largest_batch = largest.Find(plain_, refused ? &chosen_ : nullptr) * spec_.virtual_replicas;
  if (!largest.note().empty()) notes_.push_back(largest.note());
}

void MemoryFit::Describe(const Setting& setting) {
  const memory::Trace step = chosen_.At(spec_.micro_batch);
  const memory::Peak peak = memory::PeakOf(step);
  profile_.threads = setting.threads;
  profile_.peak = BytesOf(setting, peak.by_category);
  profile_.resident_bytes = profile_.peak.Total();
  profile_.expected_resident_bytes = std::min(Expected(setting, step, peak.bytes), profile_.resident_bytes);
  Setting one = setting;
  one.threads = 1;
  const memory::Bytes of_one = BytesOf(one, peak.by_category);
  profile_.peak_bytes = of_one.Total() - of_one[Category::kRuntime] - of_one[Category::kInputPipeline] - of_one[Category::kAllocatorSlack];
  profile_.bytes_per_further_thread = peak.bytes;
  profile_.limit_bytes = limit_;
  profile_.at_peak = peak.place;
  profile_.method = chosen_.method();
  memory::Timeline timeline = memory::TimelineOf(step, kTimelinePoints);
  profile_.timeline_bytes = std::move(timeline.bytes);
  profile_.timeline_places = std::move(timeline.places);
  profile_.places = std::move(timeline.names);
}

absl::Status MemoryFit::Refuse(const Setting& setting) const {
  return absl::ResourceExhaustedError(absl::StrCat("it needs ", Total(setting), " bytes with ", AtATime(setting.threads), " of ",
                                                   spec_.micro_batch, " samples at a time, and the limit is ", limit_));
}

std::string MemoryFit::WhatWouldFit(const Setting& setting) const {
  const int64_t need = Total(setting);
  const std::string limit = absl::StrCat("a limit of ", (need + (1 << 20) - 1) >> 20, "MiB");
  if (profile_.largest_batch > 0) {
    return absl::StrCat(profile_.largest_batch, " samples a batch would fit with ", spec_.virtual_replicas,
                        " virtual replicas; this batch with ", limit);
  }
  const std::string others = Size(need - setting.threads * setting.recompute.bytes_per_thread);
  return absl::StrCat("It would fit with ", limit, "; all but its steps takes ", others,
                      spec_.keeps_checkpoints() ? ", with the copy of its state for checkpoints" : "");
}

absl::Status MemoryFit::Run() {
  RETURN_IF_ERROR(RecordPlain());
  if (!plain_.extends()) notes_.push_back(absl::StrCat("memory: ", plain_.method()));
  Setting setting;
  setting.threads = threads_;
  setting.pipeline_bytes = spec_.pipeline_bytes;
  setting.recompute.bytes_per_thread = plain_.PeakAt(spec_.micro_batch).bytes;
  absl::Status status;
  if (limit_ > 0 && Total(setting) > limit_) status = spec_.remedies ? Apply(setting) : Refuse(setting);
  if (!status.ok() && !absl::IsResourceExhausted(status)) return status;
  Describe(setting);
  // It takes another recording.
  if (limit_ > 0 && (spec_.plan_only || !status.ok())) FindLargestBatch(setting, !status.ok());
  if (!status.ok()) {
    return absl::ResourceExhaustedError(absl::StrCat(status.message(), ". ", WhatWouldFit(setting)));
  }
  PlanNext(setting);
  ListFurther(setting);
  spec_.threads = setting.threads;
  spec_.pipeline_bytes = setting.pipeline_bytes;
  spec_.recompute = setting.recompute;
  spec_.step_bytes_per_sample = BytesPerSample(setting);
  if (limit_ > 0) {
    spec_.tensor_bytes = limit_ - runtime_bytes_ - kHeapSlackBytes - setting.pipeline_bytes;
  }
  return absl::OkStatus();
}

}  // namespace lockstep
