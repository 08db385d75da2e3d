#include "trainer/largest_batch.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "memory/segments.h"

namespace lockstep {
namespace {

// Of a regime without an end.
constexpr int64_t kMostMicroBatch = 1 << 16;

}  // namespace

int64_t MostSamples(const RecordedPass::Regime& regime, const std::function<bool(int64_t samples)>& fits) {
  int64_t most = regime.first - 1;
  for (int64_t above = (regime.last == 0 ? kMostMicroBatch : regime.last) + 1; most + 1 < above;) {
    const int64_t middle = most + (above - most) / 2;
    (fits(middle) ? most : above) = middle;
  }
  return most < regime.first ? 0 : most;
}

LargestBatch::LargestBatch(RunSpec& spec, Trial& trial, const CallGraph& graph, int64_t bytes, int64_t pipeline_bytes_per_sample)
    : spec_(spec),
      trial_(trial),
      graph_(graph),
      planned_(spec.micro_batch),
      bytes_(bytes),
      pipeline_bytes_per_sample_(pipeline_bytes_per_sample) {}

int64_t LargestBatch::Of(const RecordedPass& pass) const {
  return MostSamples(pass.regime(), [&](int64_t samples) { return pass.PeakAt(samples).bytes <= Left(samples); });
}

std::vector<Segment> LargestBatch::ForMost(const RecordedPass& plain, int64_t& about) const {
  const auto fewest_at = [&](int64_t samples) { return plain.FewestBytesAt(samples, graph_).segments; };
  const auto most_with = [&](const std::vector<Segment>& segments) {
    return MostSamples({1, 0}, [&](int64_t samples) { return plain.AboutWith(segments, samples, graph_) <= Left(samples); });
  };
  std::vector<Segment> segments = fewest_at(spec_.micro_batch);
  about = most_with(segments);
  if (about == 0 || about == spec_.micro_batch) return segments;
  // What is best for few need not be so for many.
  std::vector<Segment> there = fewest_at(about);
  const int64_t more = most_with(there);
  if (more <= about) return segments;
  about = more;
  return there;
}

void LargestBatch::With(int64_t samples, const std::function<void()>& work) {
  const int micro_batch = spec_.micro_batch, batch = spec_.batch;
  spec_.micro_batch = static_cast<int>(samples);
  spec_.batch = static_cast<int>(samples * batch / micro_batch);
  work();
  spec_.micro_batch = micro_batch;
  spec_.batch = batch;
}

int64_t LargestBatch::From(int64_t samples, const std::vector<Segment>& segments) {
  int64_t most = -1;
  With(samples, [&] {
    if (const absl::StatusOr<RecordedPass> pass = trial_.Record(segments); pass.ok()) most = Of(*pass);
  });
  return most;
}

int64_t LargestBatch::AcrossRegimes(RecordedPass::Regime at, int64_t samples, const std::vector<Segment>& segments) {
  const bool up = samples > 0;
  while (up ? samples == at.last : samples == 0 && at.first > 1) {
    const int64_t next = up ? at.last + 1 : at.first - 1;
    // What nobody limited is as large as the machine: the answer would not be worth the time that it takes.
    const int64_t there = up && !limited() ? -1 : From(next, segments);
    if (there < 0 && up) {
      note_ = absl::StrCat("memory: larger batches than ", samples * spec_.virtual_replicas, " may fit: from ", next,
                           " samples a virtual replica on libtorch computes in another way, of which plan says more when asked");
    }
    if (there < 0 || (up && there == 0)) break;
    samples = there;
    at = RecordedPass::RegimeOf(spec_.device, next);
  }
  return samples;
}

int64_t LargestBatch::Find(const RecordedPass& plain, const RecordedPass* least) {
  const RecordedPass::Regime here = plain.regime();
  int64_t samples = Of(plain);
  const bool all_fit = samples > 0 && samples == here.last;
  if (spec_.kind != JobKind::kFit || !spec_.remedies || (all_fit && !limited())) return AcrossRegimes(here, samples, {});
  if (!plain.extends()) {
    // Of this micro-batch alone; one sample is such, and others say more.
    if (samples == 0 || here.last > 1 || !limited()) return AcrossRegimes(here, samples, {});
    With(here.last + 1, [&] {
      if (const absl::StatusOr<RecordedPass> next = trial_.Record({}); next.ok() && next->extends()) {
        samples = std::max(samples, Find(*next, nullptr));
      }
    });
    return samples;
  }
  int64_t about = 0;
  const std::vector<Segment> segments = ForMost(plain, about);
  // Where more seem to fit than this regime has, the next is asked, and most often only that.
  if (here.last > 0 && about > here.last && limited()) {
    if (const int64_t there = From(here.last + 1, segments); there > 0) return there;
  }
  if (least != nullptr) {
    samples = std::max(samples, Of(*least));
  } else if (!all_fit && about > samples) {
    samples = std::max(samples, From(spec_.micro_batch, segments));
  }
  return AcrossRegimes(here, samples, segments);
}

}  // namespace lockstep
