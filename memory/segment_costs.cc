#include "memory/segment_costs.h"

#include <algorithm>
#include <utility>

namespace lockstep::memory {
namespace {

// What a segment costs beside its calls, as a part of forward and backward, so that none is made without need.
constexpr double kOfSegment = 1e-4;

}  // namespace

SegmentCosts::SegmentCosts(const PassCosts& costs) : costs_(costs), made_(costs.calls.size()), passing_(costs.calls.size() + 1) {
  for (const PassCosts::Value& value : costs.values) {
    if (value.life.made_by >= 0) made_[static_cast<size_t>(value.life.made_by)] = &value;
    for (int call = value.life.made_by + 1; call <= value.life.last_use; ++call) passing_[static_cast<size_t>(call)] += value.bytes;
  }
  for (size_t i = 0; i < costs.calls.size(); ++i) {
    const int64_t bytes = Storable(static_cast<int>(i), static_cast<int>(costs.calls.size()));
    worth_.push_back(bytes == 0 ? 0 : costs.calls[i].seconds / static_cast<double>(bytes));
  }
}

SegmentCosts::Kept SegmentCosts::KeptAsIs(int first, int end) const {
  Kept kept;
  for (int i = first; i < end; ++i) {
    const PassCosts::Call& call = costs_.calls[static_cast<size_t>(i)];
    kept.bytes += call.kept;
    kept.peak = std::max(kept.peak, kept.bytes + call.beside);
    kept.forward = std::max(kept.forward, kept.bytes + call.forward);
  }
  return kept;
}

SegmentCosts::Again SegmentCosts::ComputedAgain(int first, int end, absl::FunctionRef<bool(int)> stores) const {
  Again again;
  again.seconds = costs_.seconds * kOfSegment;
  int64_t kept = 0;
  for (int i = first; i < end; ++i) {
    const PassCosts::Call& call = costs_.calls[static_cast<size_t>(i)];
    const PassCosts::Value* const output = made_[static_cast<size_t>(i)];
    kept += call.kept;
    const bool used = output != nullptr && output->life.first_use < end;
    if (call.takes_output && output != nullptr && (!used || stores(i))) {
      if (output->kept && (used || !call.gradient_over_output)) kept -= output->bytes;
      if (used) again.stored += output->bytes;
    } else {
      again.seconds += call.seconds;
    }
    // While it is computed again the gradients of what leaves it are there already.
    again.peak = std::max(again.peak, kept + std::max(call.beside, call.forward + Passing(end)));
  }
  again.peak += again.stored;
  return again;
}

SegmentCosts::Again SegmentCosts::ComputedAgain(const CallRange& segment) const {
  Again again = ComputedAgain(segment.first, segment.end,
                              [&](int call) { return std::binary_search(segment.stored.begin(), segment.stored.end(), call); });
  if (segment.inner.empty()) return again;
  const Stretch inner = Of(segment.first, segment.end, segment.inner, again.stored, Passing(segment.end));
  again.peak = inner.peak;
  again.seconds += inner.seconds;
  return again;
}

// `taken`: stored outputs that are there until they are taken; `gradients`: there while the stretch is computed.
SegmentCosts::Stretch SegmentCosts::Of(int first, int end, const std::vector<CallRange>& segments, int64_t taken, int64_t gradients) const {
  Stretch stretch;
  int64_t stored = 0;
  int done = first;
  bool again = true;
  const auto keep = [&](int until) {
    if (until == done) return;
    const Kept kept = KeptAsIs(done, until);
    stretch.peak = std::max(stretch.peak, stored + std::max(kept.peak, kept.forward + gradients));
    stored += kept.bytes;
    again = false;
  };
  for (const CallRange& segment : segments) {
    keep(segment.first);
    stored += again ? 0 : Entering(segment.first, first);
    const Again piece = ComputedAgain(segment);
    stretch.peak = std::max(
        {stretch.peak, stored + piece.peak, taken + stored + piece.stored + Forgotten(segment.first, segment.end).back() + gradients});
    stored += Leaving(segment.first, segment.end, end) + piece.stored;
    stretch.seconds += piece.seconds;
    again = true;
    done = segment.end;
  }
  keep(end);
  return stretch;
}

Choice SegmentCosts::Of(std::vector<CallRange> segments) const {
  const Stretch stretch = Of(0, static_cast<int>(costs_.calls.size()), segments, 0, 0);
  Choice choice;
  choice.bytes = stretch.peak;
  if (costs_.seconds > 0) choice.time_ratio = 1 + stretch.seconds / costs_.seconds;
  choice.segments = std::move(segments);
  return choice;
}

std::vector<int64_t> SegmentCosts::Forgotten(int first, int last) const {
  std::vector<int64_t> most, dying(static_cast<size_t>(last - first) + 1);  // by call: what is not used from there on
  int64_t alive = 0;
  for (int i = first; i < last; ++i) {
    const PassCosts::Call& call = costs_.calls[static_cast<size_t>(i)];
    const PassCosts::Value* const output = made_[static_cast<size_t>(i)];
    alive -= dying[static_cast<size_t>(i - first)];
    most.push_back(std::max(most.empty() ? 0 : most.back(), alive + call.kept + call.forward));
    if (output == nullptr || !output->kept || output->life.last_use < i) continue;
    alive += output->bytes;
    dying[static_cast<size_t>(std::min(output->life.last_use + 1, last) - first)] += output->bytes;
  }
  return most;
}

int64_t SegmentCosts::Storable(int call, int end) const {
  const PassCosts::Value* const output = made_[static_cast<size_t>(call)];
  if (!costs_.calls[static_cast<size_t>(call)].takes_output || output == nullptr || output->life.first_use >= end) return 0;
  return output->bytes;
}

int64_t SegmentCosts::Leaving(int first, int end, int until) const {
  int64_t bytes = 0;
  for (int i = first; i < end; ++i) {
    const PassCosts::Value* const value = made_[static_cast<size_t>(i)];
    if (value != nullptr && value->life.last_use >= end && value->life.first_use < until) bytes += value->bytes;
  }
  return bytes;
}

int64_t SegmentCosts::Entering(int call, int since) const {
  int64_t bytes = 0;
  for (int i = since; i < call; ++i) {
    const PassCosts::Value* const value = made_[static_cast<size_t>(i)];
    if (value != nullptr && value->life.last_use >= call && !value->kept) bytes += value->bytes;
  }
  return bytes;
}

}  // namespace lockstep::memory
