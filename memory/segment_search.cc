#include "memory/segment_search.h"

#include <algorithm>
#include <array>
#include <functional>
#include <utility>

namespace lockstep::memory {
namespace {

// More cuts cost time and gain little: of those close to each other the one with the fewest bytes in passing is taken.
constexpr size_t kMostCuts = 120;
// Of these, those between which there may be pieces within pieces.
constexpr size_t kMostOuterCuts = 24;
// Stored bytes are told apart to a part of the limit.
constexpr int kBins = 256, kInnerBins = 64;
// How many calls of a segment store their outputs is tried in so many degrees.
constexpr size_t kMostDegrees = 8;
// What pieces with others within them may take, in parts of the limit.
constexpr std::array<double, 7> kHeadrooms = {1, 0.95, 0.9, 0.8, 0.65, 0.5, 0.35};

// Of some, in order, so many with the fewest bytes in passing, in windows, so that they are spread over the graph.
std::vector<int> Fewest(const SegmentCosts& ranges, const std::vector<int>& calls, size_t most) {
  std::vector<int> fewest;
  const size_t windows = std::min(calls.size(), most);
  for (size_t i = 0; i < windows; ++i) {
    const auto begin = calls.begin() + static_cast<std::ptrdiff_t>(i * calls.size() / windows);
    const auto end = calls.begin() + static_cast<std::ptrdiff_t>((i + 1) * calls.size() / windows);
    fewest.push_back(*std::min_element(begin, end, [&](int a, int b) { return ranges.Passing(a) < ranges.Passing(b); }));
  }
  return fewest;
}

// From 0 to the number of calls, both included.
std::vector<int> Cuts(const PassCosts& costs, const SegmentCosts& ranges) {
  const int calls = static_cast<int>(costs.calls.size()) - 1;
  std::vector<int> allowed;
  for (int call = 1; call < calls; ++call) {
    if (costs.may_cut[static_cast<size_t>(call)]) allowed.push_back(call);
  }
  std::vector<int> cuts = Fewest(ranges, allowed, kMostCuts);
  cuts.insert(cuts.begin(), 0);
  cuts.push_back(calls);
  return cuts;
}

std::vector<size_t> OuterCuts(const SegmentCosts& ranges, const std::vector<int>& cuts) {
  const std::vector<int> within(cuts.begin() + 1, cuts.end() - 1);
  std::vector<size_t> outer = {0};
  for (const int cut : Fewest(ranges, within, kMostOuterCuts)) {
    outer.push_back(static_cast<size_t>(std::lower_bound(cuts.begin(), cuts.end(), cut) - cuts.begin()));
  }
  return outer;
}

// What storing the output of a call has to be worth, from never to always.
std::vector<double> Degrees(const PassCosts& costs, const SegmentCosts& ranges) {
  std::vector<double> worths;
  for (size_t call = 0; call + 1 < costs.calls.size(); ++call) {
    if (const double worth = ranges.Worth(static_cast<int>(call)); worth > 0) worths.push_back(worth);
  }
  std::sort(worths.begin(), worths.end(), std::greater<>());
  std::vector<double> degrees = {std::numeric_limits<double>::infinity()};
  const size_t count = std::min(worths.size(), kMostDegrees);
  for (size_t i = 1; i <= count; ++i) degrees.push_back(worths[i * worths.size() / count - 1]);
  return degrees;
}

}  // namespace

SegmentSearch::SegmentSearch(const PassCosts& costs, const SegmentCosts& ranges)
    : ranges_(ranges),
      cuts_(Cuts(costs, ranges)),
      outer_(OuterCuts(ranges, cuts_)),
      degrees_(Degrees(costs, ranges)),
      loss_(ranges.KeptAsIs(cuts_.back(), cuts_.back() + 1)),
      jumps_(cuts_.size()),
      plain_(cuts_.size()),
      nested_(cuts_.size()) {
  for (size_t from = 0; from + 1 < cuts_.size(); ++from) {
    steps_.push_back(ranges.KeptAsIs(cuts_[from], cuts_[from + 1]));
    forgotten_.push_back(ranges.Forgotten(cuts_[from], cuts_.back()));
    AddJumps(from);
  }
}

// One for each number of stored outputs. The last call stays as it is: nothing would be gained.
void SegmentSearch::AddJumps(size_t from) {
  for (size_t to = from + 1; to + 1 < cuts_.size(); ++to) {
    const int first = cuts_[from], end = cuts_[to];
    const int64_t leaving = ranges_.Leaving(first, end, cuts_.back() + 1);
    int64_t last = -1;
    for (size_t degree = 0; degree < degrees_.size(); ++degree) {
      const SegmentCosts::Again again = ranges_.ComputedAgain(first, end, [&](int call) { return Stores(call, degree); });
      if (again.stored == last) continue;
      last = again.stored;
      const int64_t forgotten = again.stored + forgotten_[from][static_cast<size_t>(end - first) - 1];
      jumps_[from].push_back({to, degree, std::max(again.peak, forgotten), leaving + again.stored, again.stored, again.seconds});
      if (again.stored == 0) plain_[from].push_back(jumps_[from].back());
    }
  }
  SortByPeak(jumps_[from]);
  SortByPeak(plain_[from]);
}

// So that a search leaves off at the first that is too much.
void SegmentSearch::SortByPeak(std::vector<Jump>& jumps) {
  std::stable_sort(jumps.begin(), jumps.end(), [](const Jump& a, const Jump& b) { return a.peak < b.peak; });
}

std::optional<std::vector<CallRange>> SegmentSearch::Run(int64_t limit, bool nested) {
  for (std::vector<Jump>& jumps : nested_) jumps.clear();
  if (nested) AddNested(limit);
  Table table{0, limit, kBins, {}, {}};
  Fill(table, /*whole=*/true);
  int best = -1;
  const size_t last = cuts_.size() - 1;
  for (int bin = 0; bin < 2 * kBins; ++bin) {
    const State& state = table.At(last, bin);
    if (state.seconds == kNone || state.stored + loss_.peak > limit) continue;
    if (best < 0 || state.seconds < table.At(last, best).seconds) best = bin;
  }
  if (best < 0) return std::nullopt;
  return PathTo(table, last, best);
}

// `whole`: of the whole pass, and not of what is within a piece.
void SegmentSearch::Fill(Table& table, bool whole) const {
  table.states.assign((cuts_.size() - table.start) * static_cast<size_t>(2 * table.bins), {});
  table.seconds.assign(table.states.size(), kNone);
  table.bins_per_byte = table.bins / static_cast<double>(std::max<int64_t>(table.limit, 1));
  // What enters is stored already.
  State begin;
  begin.seconds = 0;
  begin.again = true;
  table.At(table.start, table.bins) = begin;
  table.seconds[table.Index(table.start, table.bins)] = 0;
  for (size_t from = table.start; from + 1 < cuts_.size(); ++from) {
    const int64_t entering = ranges_.Entering(cuts_[from], cuts_[table.start]);
    for (int bin = 0; bin < 2 * table.bins; ++bin) {
      if (table.seconds[table.Index(from, bin)] == kNone) continue;
      KeepNext(table, from, bin);
      Recompute(table, whole ? jumps_[from] : plain_[from], from, bin, entering);
      if (whole) Recompute(table, nested_[from], from, bin, entering);
    }
  }
}

SegmentSearch::State* SegmentSearch::Reach(Table& table, size_t cut, bool again, int64_t stored, double seconds) {
  const int bin = std::min(static_cast<int>(static_cast<double>(stored) * table.bins_per_byte), table.bins - 1);
  const size_t index = table.Index(cut, again ? table.bins + bin : bin);
  State& there = table.states[index];
  if (seconds > table.seconds[index] || (seconds == table.seconds[index] && stored >= there.stored)) return nullptr;
  table.seconds[index] = seconds;
  return &there;
}

void SegmentSearch::KeepNext(Table& table, size_t from, int bin) const {
  const State& state = table.At(from, bin);
  const Step& step = steps_[from];
  if (state.stored + step.peak > table.limit) return;
  State* const next = Reach(table, from + 1, false, state.stored + step.bytes, state.seconds);
  if (next == nullptr) return;
  *next = {state.stored + step.bytes,
           state.seconds,
           false,
           static_cast<int>(from),
           bin,
           nullptr,
           std::max(state.peak, state.stored + step.peak),
           state.forgotten,
           std::max(state.forward, state.stored + step.forward)};
}

void SegmentSearch::Recompute(Table& table, const std::vector<Jump>& jumps, size_t from, int bin, int64_t entering) const {
  const State& state = table.At(from, bin);
  const int64_t stored = state.stored + (state.again ? 0 : entering);
  for (const Jump& jump : jumps) {
    if (stored + jump.peak > table.limit) break;
    State* const next = Reach(table, jump.to, true, stored + jump.leaving, state.seconds + jump.seconds);
    if (next == nullptr) continue;
    const auto calls = static_cast<size_t>(cuts_[jump.to] - cuts_[from]);
    *next = {stored + jump.leaving,
             state.seconds + jump.seconds,
             true,
             static_cast<int>(from),
             bin,
             &jump,
             std::max(state.peak, stored + jump.peak),
             std::max(state.forgotten, stored + jump.stored + forgotten_[from][calls - 1]),
             state.forward};
  }
}

std::vector<CallRange> SegmentSearch::PathTo(Table& table, size_t cut, int bin) const {
  std::vector<CallRange> segments;
  while (cut > table.start) {
    const State& state = table.At(cut, bin);
    const auto from = static_cast<size_t>(state.from);
    if (state.jump != nullptr) {
      CallRange& segment = segments.emplace_back(CallRange{cuts_[from], cuts_[cut], {}, {}});
      for (int call = segment.first; call < segment.end; ++call) {
        if (ranges_.Storable(call, segment.end) > 0 && Stores(call, state.jump->degree)) segment.stored.push_back(call);
      }
      if (state.jump->inner >= 0) segment.inner = inner_[static_cast<size_t>(state.jump->inner)];
    }
    bin = state.from_bin;
    cut = from;
  }
  std::reverse(segments.begin(), segments.end());
  return segments;
}

// Pieces that are computed again in pieces, some of which are let go of once more: it takes more time, and less memory.
void SegmentSearch::AddNested(int64_t limit) {
  inner_.clear();
  for (const double part : kHeadrooms) {
    for (size_t i = 0; i + 1 < outer_.size(); ++i) {
      Table table{outer_[i], static_cast<int64_t>(part * static_cast<double>(limit)), kInnerBins, {}, {}};
      Fill(table, /*whole=*/false);
      for (size_t j = i + 1; j < outer_.size(); ++j) AddNested(table, outer_[j]);
    }
  }
  for (std::vector<Jump>& jumps : nested_) SortByPeak(jumps);
}

void SegmentSearch::AddNested(Table& table, size_t to) {
  const int64_t gradients = ranges_.Passing(cuts_[to]);
  int best = -1;
  for (int bin = 0; bin < 2 * table.bins; ++bin) {
    const State& state = table.At(to, bin);
    // Where nothing within it is let go of, it is a piece as any other.
    if (state.seconds == kNone || state.seconds == 0 || std::max(state.forgotten, state.forward) + gradients > table.limit) continue;
    if (best < 0 || state.seconds < table.At(to, best).seconds) best = bin;
  }
  if (best < 0) return;
  const State state = table.At(to, best);
  const auto inner = static_cast<int>(inner_.size());
  inner_.push_back(PathTo(table, to, best));
  std::vector<Jump>& nested = nested_[table.start];
  for (const Jump& jump : jumps_[table.start]) {
    if (jump.to != to) continue;
    const int64_t peak = std::max({state.peak, jump.stored + state.forgotten + gradients, state.forward + gradients});
    if (peak >= jump.peak) continue;
    nested.push_back({to, jump.degree, peak, jump.leaving, jump.stored, jump.seconds + state.seconds, inner});
  }
}

}  // namespace lockstep::memory
