#include "memory/pass_costs.h"

#include <algorithm>
#include <utility>

#include "memory/block_pool.h"

namespace lockstep::memory {
namespace {

int64_t SizeOf(const Trace::Event& event) { return BlockPool::BlockSize(static_cast<size_t>(event.bytes)); }

}  // namespace

void PassMarks::TakeLeastSeconds(int64_t samples, const PassMarks& other, int64_t others) {
  const double scale = static_cast<double>(samples) / static_cast<double>(others);
  for (size_t call = 0; call < std::min(seconds.size(), other.seconds.size()); ++call) {
    seconds[call] = std::min(seconds[call], other.seconds[call] * scale);
  }
  backward_seconds = std::min(backward_seconds, other.backward_seconds * scale);
}

PassCosts CostsOf(const Trace& trace, const PassMarks& marks, const std::vector<ValueLife>& values, std::vector<bool> may_cut,
                  const std::vector<bool>& takes_output) {
  const size_t calls = marks.calls.size();
  PassCosts costs;
  costs.calls.resize(calls + 1);
  costs.may_cut = std::move(may_cut);
  std::vector<int64_t> sizes;
  std::vector<size_t> owners;  // by block: the call; beyond all: backward's
  const auto call_at = [&](size_t event) {
    if (event >= marks.backward) return calls + 1;
    if (event >= marks.loss) return calls;
    const auto next = std::upper_bound(marks.calls.begin(), marks.calls.end(), event);
    return next == marks.calls.begin() ? size_t{0} : static_cast<size_t>(next - marks.calls.begin()) - 1;
  };
  std::vector<bool> live;
  for (size_t i = 0; i < trace.events.size() && i < marks.backward; ++i) {
    const Trace::Event& event = trace.events[i];
    if (event.release) {
      live[static_cast<size_t>(event.block)] = false;
    } else {
      sizes.push_back(SizeOf(event));
      owners.push_back(call_at(i));
      live.push_back(true);
    }
  }
  const std::vector<bool> kept = live;
  // Where a call writes over what another made, it is the last one's.
  for (size_t call = 0; call < calls; ++call) {
    if (marks.outputs[call] >= 0) owners[static_cast<size_t>(marks.outputs[call])] = call;
  }
  for (size_t block = 0; block < kept.size(); ++block) {
    if (kept[block]) costs.calls[owners[block]].kept += sizes[block];
  }
  std::vector<int64_t> kept_through(calls + 1);
  for (size_t call = 0; call <= calls; ++call) kept_through[call] = (call == 0 ? 0 : kept_through[call - 1]) + costs.calls[call].kept;
  const std::vector<int64_t> live_bytes = LiveBytes(trace);
  const auto add = [&](size_t call, size_t event) {
    costs.calls[call].beside = std::max(costs.calls[call].beside, live_bytes[event] - kept_through[call]);
  };
  auto next = marks.backward_calls.begin();
  size_t at = calls;
  for (size_t i = 0; i < marks.end && i < trace.events.size(); ++i) {
    if (i < marks.backward) {
      add(call_at(i), i);
      costs.calls[call_at(i)].forward = costs.calls[call_at(i)].beside;
      continue;
    }
    for (; next != marks.backward_calls.end() && next->second <= i; ++next) {
      at = static_cast<size_t>(next->first);
      add(at, i - 1);  // as it begins
      const int32_t output = at < calls ? marks.outputs[at] : -1;
      costs.calls[at].gradient_over_output = output >= 0 && live[static_cast<size_t>(output)];
    }
    add(at, i);
    const auto block = static_cast<size_t>(trace.events[i].block);
    if (trace.events[i].release && block < live.size()) live[block] = false;
  }
  for (size_t call = 0; call < calls; ++call) {
    costs.calls[call].takes_output = takes_output[call];
    costs.seconds += costs.calls[call].seconds = marks.seconds[call];
  }
  costs.seconds += marks.backward_seconds;
  for (const ValueLife& life : values) {
    PassCosts::Value& value = costs.values.emplace_back();
    value.life = life;
    const int32_t block = life.made_by < 0 ? -1 : marks.outputs[static_cast<size_t>(life.made_by)];
    if (block < 0) continue;
    value.bytes = sizes[static_cast<size_t>(block)];
    value.kept = kept[static_cast<size_t>(block)] && owners[static_cast<size_t>(block)] == static_cast<size_t>(life.made_by);
  }
  return costs;
}

}  // namespace lockstep::memory
