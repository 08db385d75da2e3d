#include "memory/segments.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>
#include <utility>

namespace lockstep::memory {
namespace {

// More cuts cost time and gain little: of those close to each other the one with the fewest bytes in passing is taken.
constexpr size_t kMostCuts = 120;
// Stored bytes are told apart to a part of the limit.
constexpr int kBins = 256;
// How many calls of a segment store their outputs is tried in so many degrees.
constexpr size_t kMostDegrees = 8;
// Beyond those, so many more calls are tried one by one.
constexpr int kMostTried = 100;
// What a segment costs beside its calls, as a part of forward and backward, so that none is made without need.
constexpr double kOfSegment = 1e-4;

// What the calls of a range take while backward is at them.
class Ranges {
 public:
  explicit Ranges(const PassCosts& costs) : costs_(costs), before_(costs.calls.size() + 1), made_(costs.calls.size()) {
    for (size_t i = 0; i < costs.calls.size(); ++i) before_[i + 1] = before_[i] + costs.calls[i].kept;
    for (const PassCosts::Value& value : costs.values) {
      if (value.life.made_by >= 0) made_[static_cast<size_t>(value.life.made_by)] = &value;
    }
    for (size_t i = 0; i < costs.calls.size(); ++i) {
      const int64_t bytes = Storable(static_cast<int>(i), static_cast<int>(costs.calls.size()));
      worth_.push_back(bytes == 0 ? 0 : costs.calls[i].seconds / static_cast<double>(bytes));
    }
  }
  // Of a range that is computed again.
  struct Again {
    int64_t peak = 0;    // beside what is stored
    int64_t stored = 0;  // of outputs of its calls
    double seconds = 0;
  };
  template <typename Stores>
  Again ComputedAgain(int first, int end, const Stores& stores) const {
    Again again;
    again.seconds = costs_.seconds * kOfSegment;
    int64_t kept = 0;
    for (int i = first; i < end; ++i) {
      const PassCosts::Call& call = costs_.calls[static_cast<size_t>(i)];
      const PassCosts::Value* const output = made_[static_cast<size_t>(i)];
      kept += call.kept;
      const bool used = output != nullptr && output->life.first_use < end;
      if (call.takes_output && output != nullptr && (!used || stores(i))) {
        if (output->kept) kept -= output->bytes;
        if (used) again.stored += output->bytes;
      } else {
        again.seconds += call.seconds;
      }
      again.peak = std::max(again.peak, kept + call.beside);
    }
    return again;
  }
  // Bytes of the output of a call that may be stored in a segment up to `end`; 0: there is nothing to gain.
  int64_t Storable(int call, int end) const {
    const PassCosts::Value* const output = made_[static_cast<size_t>(call)];
    if (!costs_.calls[static_cast<size_t>(call)].takes_output || output == nullptr || output->life.first_use >= end) return 0;
    return output->bytes;
  }
  // The time that storing an output saves, for each of its bytes.
  double Worth(int call) const { return worth_[static_cast<size_t>(call)]; }
  int64_t Kept(const CallRange& part) const { return before_[static_cast<size_t>(part.end)] - before_[static_cast<size_t>(part.first)]; }
  int64_t Peak(const CallRange& part) const {
    int64_t peak = 0;
    for (int call = part.first; call < part.end; ++call) {
      peak = std::max(peak, Kept({part.first, call + 1, {}}) + costs_.calls[static_cast<size_t>(call)].beside);
    }
    return peak;
  }
  // What leaves a part.
  int64_t Leaving(const CallRange& part) const {
    int64_t bytes = 0;
    for (const PassCosts::Value& value : costs_.values) {
      if (value.life.made_by >= part.first && value.life.made_by < part.end && value.life.last_use >= part.end) bytes += value.bytes;
    }
    return bytes;
  }
  // What has to be stored where a segment begins and nothing before it was let go of.
  int64_t Entering(int call) const {
    int64_t bytes = 0;
    for (const PassCosts::Value& value : costs_.values) {
      if (value.life.made_by < call && value.life.last_use >= call && !value.kept) bytes += value.bytes;
    }
    return bytes;
  }
  int64_t Passing(int call) const {
    int64_t bytes = 0;
    for (const PassCosts::Value& value : costs_.values) {
      if (value.life.made_by < call && value.life.last_use >= call) bytes += value.bytes;
    }
    return bytes;
  }

 private:
  const PassCosts& costs_;
  std::vector<int64_t> before_;
  // By call.
  std::vector<const PassCosts::Value*> made_;
  std::vector<double> worth_;
};

// From 0 to the number of calls, both included.
std::vector<int> Cuts(const PassCosts& costs, const Ranges& ranges) {
  const int calls = static_cast<int>(costs.calls.size()) - 1;
  std::vector<std::pair<int64_t, int>> allowed;
  for (int call = 1; call < calls; ++call) {
    if (costs.may_cut[static_cast<size_t>(call)]) allowed.emplace_back(ranges.Passing(call), call);
  }
  std::vector<int> cuts = {0, calls};
  // In windows, so that they are spread over the graph.
  const size_t windows = std::min(allowed.size(), kMostCuts);
  for (size_t i = 0; i < windows; ++i) {
    const auto begin = allowed.begin() + static_cast<std::ptrdiff_t>(i * allowed.size() / windows);
    const auto end = allowed.begin() + static_cast<std::ptrdiff_t>((i + 1) * allowed.size() / windows);
    cuts.push_back(std::min_element(begin, end)->second);
  }
  std::sort(cuts.begin(), cuts.end());
  return cuts;
}

// What storing the output of a call has to be worth, from never to always.
std::vector<double> Degrees(const PassCosts& costs, const Ranges& ranges) {
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

class Search {
 public:
  explicit Search(const PassCosts& costs) : ranges_(costs), cuts_(Cuts(costs, ranges_)), degrees_(Degrees(costs, ranges_)) {
    for (size_t from = 0; from < cuts_.size(); ++from) {
      entering_.push_back(ranges_.Entering(cuts_[from]));
      std::vector<Jump>& jumps = jumps_.emplace_back();
      // The last call stays as it is: nothing would be gained.
      for (size_t to = from + 1; to + 1 < cuts_.size(); ++to) AddJumps(from, to, jumps);
    }
  }

  std::optional<std::vector<CallRange>> Run(int64_t limit) {
    limit_ = limit;
    states_.assign(cuts_.size(), {});
    Reach(0, {0, 0, false, -1, -1, 0}, false);
    for (size_t from = 0; from + 1 < cuts_.size(); ++from) {
      for (int bin = 0; bin < 2 * kBins; ++bin) {
        if (states_[from][static_cast<size_t>(bin)].seconds == kNone) continue;
        KeepNext(from, bin);
        Recompute(from, bin);
      }
    }
    return Best();
  }

 private:
  static constexpr double kNone = std::numeric_limits<double>::infinity();
  // A piece from one cut to another that is computed twice.
  struct Jump {
    size_t to = 0, degree = 0;
    int64_t peak = 0, leaving = 0;  // with what it stores
    double seconds = 0;
  };
  struct State {
    int64_t stored = 0;
    double seconds = kNone;
    bool again = false;  // the piece before it is computed twice
    int from = -1, from_bin = -1;
    size_t degree = 0;
  };

  // One for each number of stored outputs.
  void AddJumps(size_t from, size_t to, std::vector<Jump>& jumps) const {
    const int first = cuts_[from], end = cuts_[to];
    const int64_t leaving = ranges_.Leaving({first, end, {}});
    int64_t last = -1;
    for (size_t degree = 0; degree < degrees_.size(); ++degree) {
      const Ranges::Again again = ranges_.ComputedAgain(first, end, [&](int call) { return Stores(call, degree); });
      if (again.stored == last) continue;
      last = again.stored;
      jumps.push_back({to, degree, again.peak + again.stored, leaving + again.stored, again.seconds});
    }
  }
  bool Stores(int call, size_t degree) const { return ranges_.Worth(call) >= degrees_[degree]; }

  void Reach(size_t cut, const State& state, bool again) {
    const int bin = static_cast<int>(std::min<int64_t>(state.stored * kBins / std::max<int64_t>(limit_, 1), kBins - 1));
    State& there = states_[cut][static_cast<size_t>(again ? kBins + bin : bin)];
    if (state.seconds > there.seconds || (state.seconds == there.seconds && state.stored >= there.stored)) return;
    there = state;
    there.again = again;
  }

  void KeepNext(size_t from, int bin) {
    const State state = states_[from][static_cast<size_t>(bin)];
    const CallRange part{cuts_[from], cuts_[from + 1], {}};
    if (state.stored + ranges_.Peak(part) > limit_) return;
    Reach(from + 1, {state.stored + ranges_.Kept(part), state.seconds, false, static_cast<int>(from), bin, 0}, false);
  }

  void Recompute(size_t from, int bin) {
    const State state = states_[from][static_cast<size_t>(bin)];
    const int64_t stored = state.stored + (state.again ? 0 : entering_[from]);
    for (const Jump& jump : jumps_[from]) {
      if (stored + jump.peak > limit_) continue;
      Reach(jump.to, {stored + jump.leaving, state.seconds + jump.seconds, true, static_cast<int>(from), bin, jump.degree}, true);
    }
  }

  std::optional<std::vector<CallRange>> Best() const {
    const CallRange loss{cuts_.back(), cuts_.back() + 1, {}};
    int best = -1;
    for (int bin = 0; bin < 2 * kBins; ++bin) {
      const State& state = states_.back()[static_cast<size_t>(bin)];
      if (state.seconds == kNone || state.stored + ranges_.Peak(loss) > limit_) continue;
      if (best < 0 || state.seconds < states_.back()[static_cast<size_t>(best)].seconds) best = bin;
    }
    if (best < 0) return std::nullopt;
    std::vector<CallRange> segments;
    for (auto at = cuts_.size() - 1; at > 0;) {
      const State& state = states_[at][static_cast<size_t>(best)];
      const auto from = static_cast<size_t>(state.from);
      if (state.again) {
        CallRange& segment = *segments.insert(segments.begin(), {cuts_[from], cuts_[at], {}});
        for (int call = segment.first; call < segment.end; ++call) {
          if (ranges_.Storable(call, segment.end) > 0 && Stores(call, state.degree)) segment.stored.push_back(call);
        }
      }
      best = state.from_bin;
      at = from;
    }
    return segments;
  }

  const Ranges ranges_;
  const std::vector<int> cuts_;
  const std::vector<double> degrees_;
  std::vector<int64_t> entering_;         // by cut
  std::vector<std::vector<Jump>> jumps_;  // by cut, to each later one
  int64_t limit_ = 0;
  std::vector<std::array<State, 2 * kBins>> states_;  // by cut
};

}  // namespace

Choice CostOf(const PassCosts& costs, std::vector<CallRange> segments) {
  const Ranges ranges(costs);
  const int calls = static_cast<int>(costs.calls.size());
  Choice choice;
  int64_t stored = 0;
  double seconds = 0;
  int done = 0;
  bool again = false;
  const auto keep = [&](const CallRange& part) {
    if (part.first == part.end) return;
    choice.bytes = std::max(choice.bytes, stored + ranges.Peak(part));
    stored += ranges.Kept(part);
    again = false;
  };
  for (const CallRange& segment : segments) {
    keep({done, segment.first, {}});
    stored += again ? 0 : ranges.Entering(segment.first);
    const Ranges::Again piece = ranges.ComputedAgain(
        segment.first, segment.end, [&](int call) { return std::binary_search(segment.stored.begin(), segment.stored.end(), call); });
    choice.bytes = std::max(choice.bytes, stored + piece.stored + piece.peak);
    stored += ranges.Leaving(segment) + piece.stored;
    seconds += piece.seconds;
    again = true;
    done = segment.end;
  }
  keep({done, calls, {}});
  if (costs.seconds > 0) choice.time_ratio = 1 + seconds / costs.seconds;
  choice.segments = std::move(segments);
  return choice;
}

namespace {

// Outputs for which there is room, the most worth first.
void StoreMore(const PassCosts& costs, int64_t limit, Choice& choice) {
  const Ranges ranges(costs);
  std::vector<std::pair<size_t, int>> further;  // segment, call
  for (size_t i = 0; i < choice.segments.size(); ++i) {
    const CallRange& segment = choice.segments[i];
    for (int call = segment.first; call < segment.end; ++call) {
      if (ranges.Storable(call, segment.end) == 0 || std::binary_search(segment.stored.begin(), segment.stored.end(), call)) continue;
      further.emplace_back(i, call);
    }
  }
  std::stable_sort(further.begin(), further.end(),
                   [&](const auto& a, const auto& b) { return ranges.Worth(a.second) > ranges.Worth(b.second); });
  int tried = 0;
  for (const auto& [segment, call] : further) {
    if (++tried > kMostTried) break;
    std::vector<CallRange> with = choice.segments;
    std::vector<int>& stored = with[segment].stored;
    stored.insert(std::lower_bound(stored.begin(), stored.end(), call), call);
    Choice more = CostOf(costs, std::move(with));
    if (more.bytes <= limit) choice = std::move(more);
  }
}

}  // namespace

std::optional<Choice> ChooseSegments(const PassCosts& costs, int64_t limit_bytes) {
  if (limit_bytes <= 0) return std::nullopt;
  std::optional<std::vector<CallRange>> segments = Search(costs).Run(limit_bytes);
  if (!segments) return std::nullopt;
  Choice choice = CostOf(costs, *std::move(segments));
  StoreMore(costs, limit_bytes, choice);
  return choice;
}

Choice FewestBytes(const PassCosts& costs) {
  Choice best = CostOf(costs, {});
  Search search(costs);
  for (int64_t low = 0; low + best.bytes / 500 < best.bytes;) {
    const int64_t middle = low + (best.bytes - low) / 2;
    auto segments = search.Run(middle);
    Choice choice = segments ? CostOf(costs, *std::move(segments)) : best;
    if (choice.bytes < best.bytes) {
      best = std::move(choice);
    } else {
      low = middle;
    }
  }
  return best;
}

}  // namespace lockstep::memory
