#include "trainer/activity.h"

#include <utility>

#include "absl/strings/str_format.h"

namespace lockstep {
namespace {

constexpr size_t kMostRecent = 16;
constexpr double kNewestWeighs = 0.2;

}  // namespace

void Activity::Enter(const char* phase, uint64_t step) {
  const absl::Time now = absl::Now();
  absl::MutexLock lock(&mutex_);
  if (phase == kStepBegins) step_began_ = now;
  if (phase == kWaitsForOthers) {
    const double busy = absl::ToDoubleSeconds(now - step_began_);
    busy_seconds_ = busy_seconds_ == 0 ? busy : (1 - kNewestWeighs) * busy_seconds_ + kNewestWeighs * busy;
  }
  recent_.emplace_back(now_, now - now_.since);
  if (recent_.size() > kMostRecent) recent_.pop_front();
  now_ = {phase, step, now};
}

Activity::View Activity::Take() const {
  absl::MutexLock lock(&mutex_);
  View view{now_.phase, now_.step, absl::ToDoubleSeconds(absl::Now() - now_.since), busy_seconds_, {}};
  for (const auto& [moment, took] : recent_) {
    view.recent.push_back(absl::StrFormat("%s of step %d: %.3f s", moment.phase, moment.step, absl::ToDoubleSeconds(took)));
  }
  return view;
}

}  // namespace lockstep
