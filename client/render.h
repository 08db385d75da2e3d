#pragma once
// What people read while a job runs and when it has ended, as text. Pure functions. Thread-safe.

#include <string>
#include <vector>

#include "client/run_view.h"

namespace lockstep {

// What the place that is written to can show.
struct Style {
  // Lines may be redrawn in place.
  bool terminal = false;
  size_t columns = 80;
  bool colour = false;
  bool utf8 = false;
  // Says so while a job waits to be planned.
  bool waiting_is_news = true;
  // Says notes as they come.
  bool notes_are_news = true;

  // Of standard output. Colours only on a terminal, and not with NO_COLOR (https://no-color.org) or TERM=dumb.
  static Style OfStandardOutput();
};

// The live line: epoch, bar, step, loss, metrics, images/s, time left, memory. At most `style.columns` wide; the bar gives way
// first. Before the first step: the state and its reason. Of an evaluation or a prediction: "evaluating" or "predicting", and its batches.
std::string RenderLive(const RunView& view, const Style& style);

// The same without a bar, whole, for logs.
std::string RenderStep(const RunView& view);

// "epoch 3/10  loss 0.4321  accuracy 0.8512  val_loss 0.5123  …".
std::string RenderEpoch(const v1::EpochRecord& record, const RunView& view, const Style& style);

// A job's state and reason on one line: "refused: the batch does not fit …".
std::string RenderState(v1::JobState state, const std::string& reason);

// The summary for people: steps, time, final figures, the memory table. Lines without the last newline.
std::string RenderResult(const v1::Job& job, const v1::Result& result, const v1::MemoryProfile& predicted, uint32_t replicas);

// The categories with bytes and share, in the design's order; peak, limit, resident below. Beside it what was predicted, if something was.
std::string RenderMemory(const v1::MemoryReport& memory, const v1::MemoryProfile& predicted);

using BytesByCategory = google::protobuf::Map<std::string, uint64_t>;
// The names that either has: in the design's order, then those that it does not know.
std::vector<std::string> CategoriesOf(const BytesByCategory& some, const BytesByCategory& others);
// What ran, as planning names it ("backward conv1", "again conv1"), for people.
std::string PlaceText(const std::string& place);
// At the peak, of all tensors of the trainer that is predicted.
uint64_t TensorBytes(const v1::MemoryProfile& profile);

// "0.4321", "1.2e-05", "nan".
std::string FormatValue(double value);
// "0:07", "12:34", "1:02:03": what is left, or an age.
std::string FormatTime(absl::Duration duration);
// "0.52 s", "7.4 s", "45 s", then as above: what something took.
std::string FormatElapsed(absl::Duration duration);
// "950", "1,234".
std::string FormatCount(double value);
// "done", "running".
std::string StateName(v1::JobState state);
// Columns padded to their widest cell, two blanks between; the first row is the heading. Numbers (right[i]) to the right.
std::string RenderTable(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right);

}  // namespace lockstep
