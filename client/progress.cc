#include "client/progress.h"

namespace lockstep {
namespace {

constexpr absl::Duration kRedrawEvery = absl::Milliseconds(100);
constexpr absl::Duration kPlainEvery = absl::Seconds(5);

}  // namespace

void Progress::Show(const v1::Event& event, const RunView& view) {
  switch (event.what_case()) {
    case v1::Event::kNote:
      if (style_.notes_are_news) Say(event.note());
      return;
    case v1::Event::kEpoch:
      // Its live line is finished with it; the next step draws the next one.
      End();
      Say(RenderEpoch(event.epoch(), view, style_));
      if (!style_.terminal) last_drawn_ = clock_.Now();
      return;
    case v1::Event::kState:
      // How it ended is for whoever reports the end.
      if (!HasEnded(view.state)) {
        const std::string state = RenderState(view.state, view.reason);
        const bool news = view.state != v1::SUBMITTED || style_.waiting_is_news;
        if (!style_.terminal && news && state != last_state_) Say(state);
        last_state_ = state;
        Redraw(view);
      }
      return;
    case v1::Event::kStep:
    case v1::Event::kPass:
      if (clock_.Now() - last_drawn_ >= (style_.terminal ? kRedrawEvery : kPlainEvery)) {
        if (!style_.terminal) Say(RenderStep(view));
        Redraw(view);
      }
      return;
    default: return;
  }
}

void Progress::Say(const std::string& line) {
  Clear();
  out_ << line << "\n";
  if (!live_.empty()) out_ << live_;
  out_.flush();
}

void Progress::End() {
  Clear();
  live_.clear();
  out_.flush();
}

void Progress::Redraw(const RunView& view) {
  last_drawn_ = clock_.Now();
  if (!style_.terminal) return;
  Clear();
  live_ = RenderLive(view, style_);
  out_ << live_;
  out_.flush();
}

void Progress::Clear() {
  if (!live_.empty()) out_ << "\r\x1b[K";
}

}  // namespace lockstep
