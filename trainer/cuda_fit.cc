#include "trainer/cuda_fit.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "allreduce/leaf_sums.h"
#include "allreduce/ordered_allreduce.h"
#include "base/status_macros.h"
#include "trainer/chosen_segments.h"
#include "trainer/largest_batch.h"

namespace lockstep {
namespace {

using memory::Category;

constexpr int64_t kMiB = 1 << 20;
// The first step cuts the segments, the second finds them cut: what it leaves is what all others find.
constexpr int kStepsReplayed = 3;
// How often a choice that turned out to take more is made again, for less. Segments of the allocator come in large pieces.
constexpr int kAttempts = 6;
// How often the largest batch is looked for with the segments that are best for the one found before.
constexpr int kSearches = 4;
// Micro-batches that are computed and on their way.
constexpr int kMicroBatchesOnDevice = 2;

std::string InMiB(int64_t limit) { return absl::StrCat("a limit of ", limit / kMiB, "MiB"); }

}  // namespace

CudaFit::CudaFit(RunSpec& spec, Trial& trial, const CallGraph& graph, RuntimeBytes runtime_bytes, int64_t sample_bytes,
                 const memory::CudaConstants& constants)
    : spec_(spec),
      trial_(trial),
      graph_(graph),
      runtime_bytes_(std::move(runtime_bytes)),
      sample_bytes_(sample_bytes),
      constants_(constants),
      limit_(spec.memory_limit),
      exchange_(WorstExchange()),
      beside_(memory::BookedBesidePool(constants_, exchange_.ranks)) {}

CudaFit::Exchange CudaFit::WorstExchange() const {
  Exchange worst;
  if (spec_.kind != JobKind::kFit) {
    worst.ranks = std::clamp(spec_.most_replicas, 1, spec_.virtual_replicas);
    return worst;
  }
  const allreduce::Layout& layout = trial_.gradients();
  int64_t most = 0;
  for (int ranks = 1; ranks <= std::clamp(spec_.most_replicas, 1, spec_.virtual_replicas); ++ranks) {
    const allreduce::Membership membership{0, spec_.virtual_replicas, allreduce::EvenRuns(spec_.virtual_replicas, ranks), 0};
    std::vector<bool> remote(static_cast<size_t>(ranks), true);
    remote[0] = false;
    Exchange one;
    one.ranks = ranks;
    one.vectors = static_cast<int>(membership.SubtreesOf(0).size()) +
                  allreduce::LeafSums<float>::CountLanes(spec_.virtual_replicas, std::vector{membership.runs[0]});
    one.receive_bytes = static_cast<int64_t>(allreduce::PredictMemory(membership, layout, remote).receive);
    const int64_t bytes = one.vectors * static_cast<int64_t>(layout.bytes()) + one.receive_bytes + memory::NcclBytes(constants_, ranks);
    if (bytes > most) most = bytes, worst = one;
  }
  return worst;
}

std::vector<std::pair<Category, int64_t>> CudaFit::StateBlocks(int64_t micro_batch) const {
  std::vector<std::pair<Category, int64_t>> blocks = memory::WorkspaceBlocks(constants_);
  const auto& state = trial_.state_blocks();
  blocks.insert(blocks.end(), state.begin(), state.end());
  for (int i = 0; i < exchange_.vectors; ++i) blocks.emplace_back(Category::kGradients, static_cast<int64_t>(trial_.gradients().bytes()));
  for (int i = 0; i < kMicroBatchesOnDevice; ++i) blocks.emplace_back(Category::kInputPipeline, micro_batch * sample_bytes_);
  if (exchange_.receive_bytes > 0) blocks.emplace_back(Category::kCommunication, exchange_.receive_bytes);
  return blocks;
}

memory::CudaReplay CudaFit::Replay(const RecordedPass& pass, int64_t micro_batch, int64_t pool_bytes) const {
  return memory::ReplayOnCuda(StateBlocks(micro_batch), pass.At(micro_batch), kStepsReplayed, pool_bytes);
}

bool CudaFit::Fits(const RecordedPass& pass, int64_t micro_batch, int64_t limit) const {
  return PoolBytes(limit) > 0 && Replay(pass, micro_batch, PoolBytes(limit)).fits;
}

int64_t CudaFit::LeastLimit(const RecordedPass& pass, int64_t micro_batch) const {
  const memory::CudaReplay free = Replay(pass, micro_batch, 0);
  // In MiB: too little for what is live; and what it takes where nothing stops it.
  int64_t below = (beside_.Total() + free.peak_allocated - 1) / kMiB, fits = (beside_.Total() + free.peak_reserved + kMiB - 1) / kMiB;
  while (below + 1 < fits) {
    const int64_t middle = below + (fits - below) / 2;
    (Fits(pass, micro_batch, middle * kMiB) ? fits : below) = middle;
  }
  return fits * kMiB;
}

int64_t CudaFit::DeviceBytes(const RecordedPass& pass) const {
  const bool fits = limit_ > 0 && Fits(pass, spec_.micro_batch, limit_);
  return beside_.Total() + Replay(pass, spec_.micro_batch, fits ? PoolBytes(limit_) : 0).peak_reserved;
}

const memory::Choice& CudaFit::LeastOfMemory(int64_t micro_batch) {
  const auto [at, added] = least_.try_emplace(micro_batch);
  if (added) {
    const memory::PassCosts costs = plain_.CostsAt(micro_batch, graph_);
    memory::PassCosts even = costs;
    for (memory::PassCosts::Call& call : even.calls) call.seconds = 1;
    at->second = memory::CostOf(costs, memory::FewestBytes(even).segments);
  }
  return at->second;
}

absl::Status CudaFit::RecordPlain() {
  ASSIGN_OR_RETURN(plain_, trial_.Record({}));
  least_.clear();
  chosen_ = plain_;
  recompute_ = {};
  recompute_.bytes_per_thread = plain_.PeakAt(spec_.micro_batch).bytes;
  return absl::OkStatus();
}

absl::Status CudaFit::Record(const memory::Choice& choice) {
  Recomputation recomputation = ToRecomputation(choice);
  ASSIGN_OR_RETURN(chosen_, trial_.Record(recomputation.segments));
  recomputation.bytes_per_thread = chosen_.PeakAt(spec_.micro_batch).bytes;
  recompute_ = std::move(recomputation);
  return absl::OkStatus();
}

absl::StatusOr<bool> CudaFit::Recompute() {
  const memory::PassCosts costs = plain_.CostsAt(spec_.micro_batch, graph_);
  // A choice by costs counts live bytes of the step; everything else that the device has to hold is as with the pass without segments.
  int64_t target = memory::CostOf(costs, {}).bytes - (LeastLimit(plain_, spec_.micro_batch) - limit_);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const std::optional<memory::Choice> choice = memory::ChooseSegments(costs, target);
    if (!choice) break;
    RETURN_IF_ERROR(Record(*choice));
    if (Fits(chosen_, spec_.micro_batch, limit_)) return true;
    target = std::min(target, choice->bytes) - std::max<int64_t>(LeastLimit(chosen_, spec_.micro_batch) - limit_, choice->bytes / 50);
  }
  RETURN_IF_ERROR(Record(LeastOfMemory(spec_.micro_batch)));
  return Fits(chosen_, spec_.micro_batch, limit_);
}

absl::Status CudaFit::Apply() {
  if (spec_.kind == JobKind::kFit) {
    ASSIGN_OR_RETURN(const bool fits, Recompute());
    Add("recompute",
        fits ? ComputedAgainText(recompute_, graph_.calls.size()) : std::string("as much as possible computed again in backward"),
        DeviceBytes(chosen_), recompute_.time_ratio, fits);
    if (fits) return absl::OkStatus();
  }
  return spec_.allows_micro_batch ? MakeMicroBatchSmaller() : Refuse();
}

absl::Status CudaFit::MakeMicroBatchSmaller() {
  const int before = spec_.micro_batch;
  while (spec_.micro_batch > 1) {
    spec_.micro_batch = (spec_.micro_batch + 1) / 2;
    RETURN_IF_ERROR(RecordPlain());
    bool fits = Fits(plain_, spec_.micro_batch, limit_);
    if (!fits && spec_.kind == JobKind::kFit) {
      ASSIGN_OR_RETURN(fits, Recompute());
    }
    if (!fits) continue;
    Add("micro_batch", absl::StrCat("micro-batches of ", spec_.micro_batch, " samples instead of ", before, ", which changes the bits"),
        DeviceBytes(chosen_), recompute_.time_ratio, true);
    profile_.remedies.back().changes_bits = true;
    return absl::OkStatus();
  }
  return Refuse();
}

void CudaFit::Add(const char* name, std::string text, int64_t bytes, double time_ratio, bool applied) {
  MemoryProfile::Remedy& remedy = profile_.remedies.emplace_back();
  remedy.name = name;
  remedy.text = std::move(text);
  remedy.resident_bytes = bytes;
  remedy.time_ratio = time_ratio;
  remedy.applied = applied;
  if (!applied) return;
  notes_.push_back(absl::StrCat("memory: ", remedy.text, ", to stay within ", limit_, " bytes of the device",
                                time_ratio > 1.005 ? absl::StrFormat("; a step takes about %.2f times as long", time_ratio) : ""));
}

void CudaFit::ListFurther() {
  if (spec_.kind != JobKind::kFit || !spec_.remedies || !plain_.extends()) return;
  const memory::PassCosts costs = plain_.CostsAt(spec_.micro_batch, graph_);
  const int64_t now = recompute_.bytes_per_thread;
  for (const Recomputation& next : SmallerChoices(costs, now, 0, LeastOfMemory(spec_.micro_batch))) {
    Add("recompute", absl::StrCat(ComputedAgainText(next, graph_.calls.size()), " (about)"),
        profile_.resident_bytes - (now - next.bytes_per_thread), next.time_ratio, false);
  }
}

absl::Status CudaFit::FindLargestBatch() {
  const auto largest_of = [&](const RecordedPass& pass) {
    return MostSamples(pass.regime(), [&](int64_t some) { return Fits(pass, some, limit_); });
  };
  int64_t samples = largest_of(plain_);
  if (spec_.kind == JobKind::kFit && spec_.remedies && plain_.extends()) {
    // As much as possible computed again; what that is may differ by the micro-batch, and the answer is to hold for its own.
    int64_t at = spec_.micro_batch;
    RecordedPass least = chosen_;
    std::vector<Segment> segments = recompute_.segments;
    for (int search = 0; search < kSearches; ++search) {
      std::vector<Segment> wanted = LeastOfMemory(at).segments;
      if (wanted != segments) {
        segments = std::move(wanted);
        ASSIGN_OR_RETURN(least, trial_.Record(segments));
      }
      if (search > 0 && Fits(least, at, limit_)) {
        samples = at;
        break;
      }
      at = largest_of(least);
      if (at <= samples) break;
    }
  }
  if (samples > 0 && samples == plain_.regime().last) {
    notes_.push_back(absl::StrCat("memory: larger batches than ", samples * spec_.virtual_replicas,
                                  " may fit: of a single sample another sequence is recorded than of several, of which plan says more "
                                  "when asked"));
  }
  profile_.largest_batch = samples * spec_.virtual_replicas;
  return absl::OkStatus();
}

void CudaFit::Describe(bool fits) {
  const memory::Trace step = chosen_.At(spec_.micro_batch);
  const memory::CudaReplay replay = Replay(chosen_, spec_.micro_batch, fits && limit_ > 0 ? PoolBytes(limit_) : 0);
  const memory::CudaReplay state = memory::ReplayOnCuda(StateBlocks(spec_.micro_batch), {}, 0, 0);
  profile_.device = Device::kCuda;
  profile_.threads = 1;
  profile_.peak = replay.by_category;
  for (const Category category : {Category::kRuntime, Category::kCommunication}) profile_.peak[category] += beside_[category];
  profile_.resident_bytes = profile_.peak.Total();
  profile_.peak_bytes = replay.peak_allocated;
  profile_.bytes_per_further_thread = replay.peak_allocated - state.peak_allocated;
  profile_.limit_bytes = limit_;
  profile_.at_peak = replay.place;
  profile_.method = absl::StrCat(chosen_.method(), "; replayed ", kStepsReplayed, " times as libtorch's allocator for CUDA would serve it");
  memory::Bytes& host = profile_.host;
  host[Category::kInputPipeline] = spec_.pipeline_bytes + kMicroBatchesOnDevice * memory::PinnedBytes(spec_.micro_batch * sample_bytes_);
  if (spec_.keeps_checkpoints()) host[Category::kCheckpointCopies] += trial_.state_bytes();
  if (spec_.kind == JobKind::kFit) host[Category::kCheckpointCopies] += trial_.largest_variable_bytes();
  host[Category::kRuntime] = runtime_bytes_() + constants_.host_bytes;
  host[Category::kAllocatorSlack] = kHeapSlackBytes;
  memory::Timeline timeline = memory::TimelineOf(step, kTimelinePoints);
  profile_.timeline_bytes = std::move(timeline.bytes);
  profile_.timeline_places = std::move(timeline.places);
  profile_.places = std::move(timeline.names);
}

absl::Status CudaFit::Refuse() const {
  return absl::ResourceExhaustedError(absl::StrCat("it needs ", DeviceBytes(chosen_), " bytes of the device with ", spec_.micro_batch,
                                                   " samples at a time, and the limit is ", limit_));
}

std::string CudaFit::WhatWouldFit() const {
  const std::string limit = InMiB(LeastLimit(chosen_, spec_.micro_batch));
  if (profile_.largest_batch > 0) {
    return absl::StrCat(profile_.largest_batch, " samples a batch would fit with ", spec_.virtual_replicas,
                        " virtual replicas; this batch with ", limit);
  }
  return absl::StrCat("It would fit with ", limit, "; ", beside_.Total(), " bytes are booked for what is not libtorch's allocator's");
}

absl::Status CudaFit::Run() {
  RETURN_IF_ERROR(RecordPlain());
  if (!plain_.extends()) notes_.push_back(absl::StrCat("memory: ", plain_.method()));
  absl::Status status;
  if (limit_ > 0 && !Fits(plain_, spec_.micro_batch, limit_)) status = spec_.remedies ? Apply() : Refuse();
  if (!status.ok() && !absl::IsResourceExhausted(status)) return status;
  Describe(status.ok());
  if (limit_ > 0) RETURN_IF_ERROR(FindLargestBatch());
  if (!status.ok()) return absl::ResourceExhaustedError(absl::StrCat(status.message(), ". ", WhatWouldFit()));
  ListFurther();
  notes_.emplace_back(
      "memory: the context, workspaces, NCCL's buffers and CUDA's part of the host are bounds that no device has confirmed yet");
  spec_.threads = 1;
  spec_.recompute = recompute_;
  if (limit_ > 0) spec_.tensor_bytes = PoolBytes(limit_);
  return absl::OkStatus();
}

}  // namespace lockstep
