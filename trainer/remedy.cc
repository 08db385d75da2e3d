#include "trainer/remedy.h"

#include <algorithm>

namespace lockstep {

Remedies Furthest(const std::vector<Remedies>& all) {
  Remedies furthest = all.front();
  for (const Remedies& one : all) {
    furthest.threads = std::min(furthest.threads, one.threads);
    furthest.recomputations = std::max(furthest.recomputations, one.recomputations);
    furthest.again = std::max(furthest.again, one.again);
    furthest.gave_back = std::max(furthest.gave_back, one.gave_back);
  }
  return furthest;
}

RemedyChoice NextRemedy(const Remedies& now, const RemedyLimits& limits) {
  RemedyChoice choice{Remedy::kNone, now};
  Remedies& after = choice.after;
  const int threads = std::min(now.threads, limits.most_leaves);
  if (now.gave_back == 0 || limits.step + 1 > now.gave_back + kGivenBackHolds) {
    choice.remedy = Remedy::kGiveBack;
    after.gave_back = limits.step + 1;
  } else if (limits.allowed && threads > 1) {
    choice.remedy = Remedy::kFewerThreads;
    after.threads = threads / 2;
  } else if (limits.allowed && now.recomputations < limits.recomputations) {
    choice.remedy = Remedy::kRecompute;
    ++after.recomputations;
  } else if (now.again < kMostAgain) {
    choice.remedy = Remedy::kAgain;
    ++after.again;
  }
  return choice;
}

int64_t BatchThatWouldDo(const RunSpec& spec, int64_t missing_bytes) {
  if (spec.step_bytes_per_sample == 0) return 0;
  const int64_t fewer = (missing_bytes + spec.step_bytes_per_sample - 1) / spec.step_bytes_per_sample;
  return std::max<int64_t>(spec.micro_batch - fewer, 0) * spec.virtual_replicas;
}

}  // namespace lockstep
