#include "memory/segments.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"

namespace lockstep::memory {
namespace {

constexpr int64_t kMiB = 1 << 20;

// A graph with values near and far, some of which are kept anyway.
PassCosts RandomCosts(std::mt19937_64& random, int calls) {
  PassCosts costs;
  for (int i = 0; i <= calls; ++i) {
    PassCosts::Call& call = costs.calls.emplace_back();
    call.kept = static_cast<int64_t>(random() % 20) * kMiB;
    call.beside = static_cast<int64_t>(random() % 10) * kMiB;
    call.forward = call.beside * static_cast<int64_t>(random() % 3) / 2;
    call.seconds = static_cast<double>(1 + random() % 9);
    call.takes_output = i < calls && random() % 3 == 0;
    costs.seconds += 3 * call.seconds;
  }
  costs.values.push_back({{-1, 0, 0}, 0, false});
  for (int i = 0; i < calls; ++i) {
    const int last = random() % 4 == 0 ? std::min(calls, i + 1 + static_cast<int>(random() % 5)) : i + 1;
    const bool kept = random() % 2 == 0 && costs.calls[static_cast<size_t>(i)].kept > 0;
    costs.values.push_back(
        {{i, i + 1, last}, kept ? costs.calls[static_cast<size_t>(i)].kept : static_cast<int64_t>(1 + random() % 8) * kMiB, kept});
    costs.may_cut.push_back(random() % 6 != 0);
  }
  return costs;
}

// Every list of segments in calls [from, end), with every set of stored outputs and, for so many levels, of segments within them.
void ForEachChoice(const PassCosts& costs, int from, int end, int levels, std::vector<CallRange>& so_far,
                   const std::function<void()>& visit) {
  visit();
  const auto may_cut = [&](int call) { return call == 0 || costs.may_cut[static_cast<size_t>(call)]; };
  for (int first = from; first < end; ++first) {
    if (!may_cut(first)) continue;
    for (int last = first + 1; last <= end; ++last) {
      if (!may_cut(last)) continue;
      std::vector<int> storable;
      for (int call = first; call + 1 < last; ++call) {
        if (costs.calls[static_cast<size_t>(call)].takes_output) storable.push_back(call);
      }
      for (unsigned subset = 0; subset < 1U << storable.size(); ++subset) {
        CallRange segment{first, last, {}, {}};
        for (size_t i = 0; i < storable.size(); ++i) {
          if ((subset >> i & 1) != 0) segment.stored.push_back(storable[i]);
        }
        const auto go_on = [&] {
          so_far.push_back(segment);
          ForEachChoice(costs, last, end, levels, so_far, visit);
          so_far.pop_back();
        };
        if (levels == 1) {
          go_on();
        } else {
          ForEachChoice(costs, first, last, levels - 1, segment.inner, go_on);
        }
      }
    }
  }
}

// Of all choices there are.
std::vector<Choice> AllChoices(const PassCosts& costs, int levels) {
  std::vector<Choice> all;
  std::vector<CallRange> segments;
  ForEachChoice(costs, 0, static_cast<int>(costs.calls.size()) - 2, levels, segments, [&] {
    Choice choice = CostOf(costs, segments);
    choice.segments.clear();
    all.push_back(std::move(choice));
  });
  return all;
}

// The least time within a limit; less than 0: nothing is within it.
double LeastTime(const std::vector<Choice>& choices, int64_t limit) {
  double best = -1;
  for (const Choice& choice : choices) {
    if (choice.bytes <= limit && (best < 0 || choice.time_ratio < best)) best = choice.time_ratio;
  }
  return best;
}

TEST(Segments, AreWithinTheLimitAndTheLeastThatIs) {
  std::mt19937_64 random(7);
  int found = 0, none = 0, stored = 0, within = 0;
  for (int round = 0; round < 60; ++round) {
    const PassCosts costs = RandomCosts(random, 7);
    const std::vector<Choice> all = AllChoices(costs, 2);
    const int64_t plain = CostOf(costs, {}).bytes;
    for (const int percent : {100, 90, 75, 60, 45, 30}) {
      const int64_t limit = plain * percent / 100;
      const std::string where = absl::StrCat("round ", round, ", ", percent, " %");
      const std::optional<Choice> choice = ChooseSegments(costs, limit);
      if (percent == 100) {
        ASSERT_TRUE(choice.has_value());
        EXPECT_TRUE(choice->segments.empty()) << "nothing is computed twice without need";
      }
      if (!choice) {
        // Bytes are told apart to a 256th of the limit, and within a piece to a 64th: what is within a few of those may be missed.
        EXPECT_LT(LeastTime(all, limit * 97 / 100), 0) << where;
        ++none;
        continue;
      }
      ++found;
      for (const CallRange& range : choice->segments) {
        stored += static_cast<int>(range.stored.size());
        within += static_cast<int>(range.inner.size());
      }
      EXPECT_LE(choice->bytes, limit) << where;
      const double best = LeastTime(all, limit);
      ASSERT_GE(best, 0) << where;
      EXPECT_GE(choice->time_ratio, best - 1e-9) << where;
      EXPECT_LE(choice->time_ratio, best * 1.02) << where;
    }
  }
  EXPECT_GT(found, 100);
  EXPECT_GT(none, 20);
  EXPECT_GT(stored, 20);
  EXPECT_GT(within, 20);
}

TEST(Segments, AreCutOnlyWhereThatIsAllowedAndEndBeforeTheLastCall) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 40; ++round) {
    const PassCosts costs = RandomCosts(random, 300);
    const Choice choice = FewestBytes(costs);
    int done = 0;
    for (const CallRange& range : choice.segments) {
      EXPECT_GE(range.first, done);
      EXPECT_GT(range.end, range.first);
      EXPECT_LT(range.end, 300);
      EXPECT_TRUE(range.first == 0 || costs.may_cut[static_cast<size_t>(range.first)]);
      EXPECT_TRUE(costs.may_cut[static_cast<size_t>(range.end)]);
      done = range.end;
    }
    EXPECT_LT(choice.bytes, CostOf(costs, {}).bytes / 2);
  }
}

TEST(Segments, NothingFitsIntoNothing) {
  std::mt19937_64 random(1);
  EXPECT_FALSE(ChooseSegments(RandomCosts(random, 9), 0).has_value());
  EXPECT_FALSE(ChooseSegments(RandomCosts(random, 9), 1).has_value());
}

}  // namespace
}  // namespace lockstep::memory
