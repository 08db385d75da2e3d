#pragma once
// Where in a step the calling thread is: its phase, and the layer that runs. It costs two stores to say so, and is read at the moment of
// a request for memory, by the pool for its high-water marks and by whoever reports that a request was refused. Each thread has its own.
// No libtorch.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lockstep::memory {

enum class Phase : uint8_t { kLoad, kForward, kBackward, kUpdate, kValidate };
inline constexpr size_t kPhases = static_cast<size_t>(Phase::kValidate) + 1;

// As in protos and metrics: "forward".
std::string_view PhaseName(Phase phase);

struct Place {
  Phase phase = Phase::kLoad;
  // Of the model, which must outlive its use here. Empty where no layer runs. In backward, which says only when it is through with a
  // layer's variables: the layer that it was through with last, so that what runs comes before it in the graph.
  std::string_view layer;
};

// "forward conv1", "backward, before conv1", "update".
std::string Text(const Place& place);

// Of the calling thread. Initially loading, which is all that is not one of the other phases.
const Place& CurrentPlace();
void SetLayer(std::string_view layer);
// No layer runs yet.
void SetPhase(Phase phase);

// Sets the calling thread's phase for a scope.
class ScopedPhase {
 public:
  explicit ScopedPhase(Phase phase);
  ~ScopedPhase();
  ScopedPhase(const ScopedPhase&) = delete;
  ScopedPhase& operator=(const ScopedPhase&) = delete;

 private:
  const Place previous_;
};

}  // namespace lockstep::memory
