#include "memory/place.h"

#include "absl/strings/str_cat.h"

namespace lockstep::memory {
namespace {

thread_local Place current;

}  // namespace

std::string_view PhaseName(Phase phase) {
  switch (phase) {
    case Phase::kLoad: return "load";
    case Phase::kForward: return "forward";
    case Phase::kBackward: return "backward";
    case Phase::kUpdate: return "update";
    case Phase::kValidate: return "validate";
  }
  return "load";
}

std::string Text(const Place& place) {
  const std::string phase(PhaseName(place.phase));
  if (place.layer.empty()) return phase;
  return absl::StrCat(phase, place.phase == Phase::kBackward ? ", before " : " ",
                      absl::string_view(place.layer.data(), place.layer.size()));
}

const Place& CurrentPlace() { return current; }
void SetLayer(std::string_view layer) { current.layer = layer; }
void SetPhase(Phase phase) { current = {phase, {}}; }

ScopedPhase::ScopedPhase(Phase phase) : previous_(current) { SetPhase(phase); }
ScopedPhase::~ScopedPhase() { current = previous_; }

}  // namespace lockstep::memory
