#include "memory/trace.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "memory/block_pool.h"

namespace lockstep::memory {
namespace {

thread_local Recording* current = nullptr;

int64_t Size(const Trace::Event& event) { return BlockPool::BlockSize(static_cast<size_t>(event.bytes)); }

// Calls `after(i, live)` for each event in turn.
template <typename After>
void Replay(const Trace& trace, After&& after) {
  std::vector<int64_t> sizes;
  int64_t live = 0;
  for (size_t i = 0; i < trace.events.size(); ++i) {
    const Trace::Event& event = trace.events[i];
    if (event.release) {
      live -= sizes[static_cast<size_t>(event.block)];
    } else {
      sizes.push_back(Size(event));
      live += sizes.back();
    }
    after(i, live);
  }
}

}  // namespace

Recording::Recording() {
  if (current != nullptr) std::abort();
  trace_.places.emplace_back();
  current = this;
}

Recording::~Recording() { current = nullptr; }

Recording* Recording::Current() { return current; }

int32_t Recording::IndexOf(const std::string& place) {
  const auto [found, added] = index_of_place_.try_emplace(place, static_cast<int32_t>(trace_.places.size()));
  if (added) trace_.places.push_back(found->first);
  return found->second;
}

void Recording::At(const std::string& place) {
  place_ = IndexOf(place);
  place_since_ = trace_.events.size();
}

void Recording::EndOf(const std::string& place) {
  const int32_t index = IndexOf(place);
  for (; place_since_ < trace_.events.size(); ++place_since_) trace_.events[place_since_].place = index;
}

int32_t Recording::BlockAt(const void* address) const {
  const auto found = live_.find(address);
  return found == live_.end() ? -1 : found->second;
}

Trace Recording::Take() { return std::exchange(trace_, {}); }

void Recording::Requested(const void* block, int64_t bytes, Category category) {
  live_[block] = requests_;
  trace_.events.push_back({requests_++, false, category, place_, bytes});
}

void Recording::Released(const void* block) {
  const auto found = live_.find(block);
  if (found == live_.end()) return;  // from before
  trace_.events.push_back({found->second, true, Category::kRuntime, place_, 0});
  live_.erase(found);
}

std::vector<int64_t> LiveBytes(const Trace& trace) {
  std::vector<int64_t> live_bytes;
  live_bytes.reserve(trace.events.size());
  Replay(trace, [&](size_t, int64_t live) { live_bytes.push_back(live); });
  return live_bytes;
}

Timeline TimelineOf(const Trace& trace, size_t most_points) {
  Timeline timeline;
  timeline.names = trace.places;
  const size_t stretch = std::max<size_t>((trace.events.size() + most_points - 1) / most_points, 1);
  Replay(trace, [&](size_t i, int64_t live) {
    if (i % stretch == 0) timeline.bytes.push_back(-1), timeline.places.push_back(0);
    if (live <= timeline.bytes.back()) return;
    timeline.bytes.back() = live;
    timeline.places.back() = trace.events[i].place;
  });
  return timeline;
}

Peak PeakOf(const Trace& trace) {
  Peak peak;
  Replay(trace, [&](size_t i, int64_t live) {
    if (live > peak.bytes) peak.bytes = live, peak.event = i;
  });
  if (trace.events.empty()) return peak;
  peak.place = trace.places[static_cast<size_t>(trace.events[peak.event].place)];
  std::vector<const Trace::Event*> requests;
  for (size_t i = 0; i <= peak.event; ++i) {
    const Trace::Event& event = trace.events[i];
    if (!event.release) requests.push_back(&event);
    const Trace::Event& request = *requests[static_cast<size_t>(event.block)];
    peak.by_category[request.category] += event.release ? -Size(request) : Size(request);
  }
  return peak;
}

absl::StatusOr<AffineTrace> AffineTrace::Fit(const Trace& at_small, int64_t small, const Trace& at_large, int64_t large) {
  const size_t common = std::min(at_small.events.size(), at_large.events.size());
  AffineTrace fit;
  fit.base_ = at_small;
  fit.small_ = small;
  fit.span_ = large - small;
  fit.growth_.reserve(common);
  for (size_t i = 0; i < common; ++i) {
    const Trace::Event& a = at_small.events[i];
    const Trace::Event& b = at_large.events[i];
    const std::string& place = at_small.places[static_cast<size_t>(a.place)];
    if (a.block != b.block || a.release != b.release || place != at_large.places[static_cast<size_t>(b.place)]) {
      return absl::FailedPreconditionError(
          absl::StrCat("the sequence of allocations with ", small, " samples is another than with ", large, ", from ", place, " on"));
    }
    if (b.bytes < a.bytes) {
      return absl::FailedPreconditionError(absl::StrCat("in ", place, " ", large, " samples take less than ", small));
    }
    fit.growth_.push_back(b.bytes - a.bytes);
  }
  if (at_small.events.size() != at_large.events.size()) {
    return absl::FailedPreconditionError(absl::StrCat("with ", small, " samples there are ", at_small.events.size(),
                                                      " allocations and releases, with ", large, " there are ", at_large.events.size()));
  }
  return fit;
}

Trace AffineTrace::At(int64_t micro_batch) const {
  Trace trace = base_;
  for (size_t i = 0; i < growth_.size(); ++i) {
    // Rounded up: a size that does not grow evenly is a buffer of whole blocks.
    const int64_t grown = growth_[i] * (micro_batch - small_);
    trace.events[i].bytes += grown >= 0 ? (grown + span_ - 1) / span_ : grown / span_;
    if (!trace.events[i].release) trace.events[i].bytes = std::max<int64_t>(trace.events[i].bytes, 0);
  }
  return trace;
}

absl::Status AffineTrace::Check(const Trace& recorded, int64_t micro_batch) const {
  const Trace said = At(micro_batch);
  if (recorded.events.size() != said.events.size()) {
    return absl::FailedPreconditionError(absl::StrCat("with ", micro_batch, " samples there are ", recorded.events.size(),
                                                      " allocations and releases, not ", said.events.size()));
  }
  for (size_t i = 0; i < said.events.size(); ++i) {
    const Trace::Event& a = said.events[i];
    const Trace::Event& b = recorded.events[i];
    if (a.block == b.block && a.release == b.release && a.bytes == b.bytes) continue;
    return absl::FailedPreconditionError(absl::StrCat("in ", said.places[static_cast<size_t>(a.place)], " ", micro_batch, " samples take ",
                                                      b.bytes, " bytes where ", a.bytes, " follow from fewer"));
  }
  return absl::OkStatus();
}

}  // namespace lockstep::memory
