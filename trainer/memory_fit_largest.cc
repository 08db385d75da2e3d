// The largest batch that fits: the micro-batch is searched for in the regime that was planned, and, where all or nothing of that fits, in
// the next, or in the one before.

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "trainer/memory_fit.h"

namespace lockstep {

int64_t MemoryFit::LargestMicroBatch(const RecordedPass& plain, const RecordedPass* least, int64_t bytes, int planned) {
  using BytesOfStep = std::function<int64_t(int64_t samples)>;
  const auto largest = [&](const RecordedPass& pass, const BytesOfStep& bytes_of) {
    return pass.LargestMicroBatch(spec_.micro_batch, kMostMicroBatch, bytes,
                                  [&](int64_t some) { return bytes_of(some) + (some - planned) * around_.pipeline_bytes_per_sample; });
  };
  const auto recorded = [&](const RecordedPass& pass) { return largest(pass, [&](int64_t some) { return pass.PeakAt(some).bytes; }); };
  const int64_t samples = recorded(plain);
  if (spec_.kind != JobKind::kFit || !spec_.remedies || !plain.extends()) return samples;
  if (least != nullptr) return std::max(samples, recorded(*least));
  // As much as possible computed again, as chosen for about as many samples as will fit then.
  const int64_t about = largest(plain, [&](int64_t some) {
    const memory::PassCosts costs = plain.CostsAt(some, graph_);
    return memory::FewestBytes(costs).bytes + plain.PeakAt(some).bytes - memory::CostOf(costs, {}).bytes;
  });
  if (about <= samples) return samples;
  const absl::StatusOr<RecordedPass> pass = trial_.Record(memory::FewestBytes(plain.CostsAt(about, graph_)).segments);
  return pass.ok() ? std::max(samples, recorded(*pass)) : samples;
}

absl::StatusOr<int64_t> MemoryFit::LargestFrom(int64_t samples, int64_t bytes) {
  const int planned = spec_.micro_batch, batch = spec_.batch;
  if (samples > planned) {
    // What nobody limited is as large as the machine: the answer would not be worth the time that it takes.
    if (spec_.memory_limit == 0) return absl::UnavailableError("no limit");
    // It is recorded with some samples more, and perhaps side by side.
    const int64_t all = runtime_bytes_ + trial_.state().Total() + plain_.PeakAt(planned).bytes * 2 * samples / planned;
    if (spec_.worker_memory_bytes > 0 && all > spec_.worker_memory_bytes) return absl::UnavailableError("no memory to record them");
  }
  spec_.micro_batch = static_cast<int>(samples);
  spec_.batch = static_cast<int>(samples * batch / planned);
  const absl::StatusOr<RecordedPass> pass = trial_.Record({});
  const int64_t largest = pass.ok() ? LargestMicroBatch(*pass, nullptr, bytes, planned) : 0;
  spec_.micro_batch = planned;
  spec_.batch = batch;
  RETURN_IF_ERROR(pass.status());
  return largest;
}

void MemoryFit::FindLargestBatch(Setting setting, bool refused) {
  if (spec_.remedies) {
    setting.threads = 1;
    setting.pipeline_bytes = std::min(setting.pipeline_bytes, around_.least_pipeline_bytes);
  }
  // What the runtime takes differs by a few MiB from process to process: the answer is to hold for another, too.
  const int64_t bytes = Left(setting) * 99 / 100;
  // What was recorded last where nothing fits.
  int64_t samples = LargestMicroBatch(plain_, refused ? &chosen_ : nullptr, bytes, spec_.micro_batch);
  RecordedPass::Regime at = RecordedPass::RegimeOf(spec_.micro_batch);
  // All of a regime fits, or nothing: the answer is in the next, or in the one before.
  const bool up = samples > 0;
  while (up ? samples == at.last : samples == 0 && at.first > 1) {
    const int64_t next = up ? at.last + 1 : at.first - 1;
    const absl::StatusOr<int64_t> there = LargestFrom(next, bytes);
    if (!there.ok() && up) {
      notes_.push_back(absl::StrCat("memory: larger batches than ", samples * spec_.virtual_replicas, " may fit: from ", next,
                                    " samples a virtual replica on libtorch computes in another way, of which plan says more when asked"));
    }
    if (!there.ok() || (up && *there == 0)) break;
    samples = *there;
    at = RecordedPass::RegimeOf(next);
  }
  profile_.largest_batch = samples * spec_.virtual_replicas;
}

}  // namespace lockstep
