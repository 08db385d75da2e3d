#pragma once
// Shows a job while it runs: on a terminal one live line that is redrawn, and a finished line for each epoch; elsewhere plain
// lines, one for each epoch and at most one each few seconds. Not thread-safe.

#include <ostream>
#include <string>

#include "base/clock.h"
#include "client/render.h"
#include "client/run_view.h"

namespace lockstep {

class Progress {
 public:
  // `out` and `clock` must outlive it.
  Progress(std::ostream& out, const Style& style, const Clock& clock) : out_(out), style_(style), clock_(clock) {}

  // `view` has the event in it already.
  void Show(const v1::Event& event, const RunView& view);
  // A line of its own, above the live line.
  void Say(const std::string& line);
  // Takes the live line away; what is written afterwards stands at the beginning of a line.
  void End();

 private:
  void Redraw(const RunView& view);
  void Clear();

  std::ostream& out_;
  const Style style_;
  const Clock& clock_;
  absl::Time last_drawn_ = absl::InfinitePast();
  std::string live_;
  std::string last_state_;
};

}  // namespace lockstep
