#include "client/render.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/size.h"

namespace lockstep {
namespace {

constexpr size_t kWidestBar = 30;
constexpr size_t kNarrowestBar = 8;
constexpr const char* kGap = "  ";
// The design's order.
constexpr std::array<const char*, 11> kCategories = {"parameters",        "gradients",       "optimizer",     "activations",
                                                     "workspace",         "allocator_slack", "communication", "input_pipeline",
                                                     "checkpoint_copies", "runtime",         "unaccounted"};

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool Utf8Locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = absl::AsciiStrToLower(Environment(name));
    if (!value.empty()) return absl::StrContains(value, "utf-8") || absl::StrContains(value, "utf8");
  }
  return false;
}

std::string Painted(const std::string& text, const char* code, const Style& style) {
  return style.colour ? absl::StrCat("\x1b[", code, "m", text, "\x1b[0m") : text;
}

std::string OfTotal(uint64_t part, uint64_t total) { return total == 0 ? absl::StrCat(part) : absl::StrCat(part, "/", total); }

// Where in the epoch the job is; in the whole run where an epoch's length is not known yet.
struct Position {
  uint64_t at = 0;
  uint64_t of = 0;
};
Position PositionOf(const RunView& view) {
  if (view.pass) return {view.pass->batch(), view.pass->batches()};
  if (view.steps_per_epoch == 0) return {view.step, view.total_steps};
  return {view.epoch.steps, view.steps_per_epoch};
}

std::vector<std::string> Figures(const RunView& view) {
  std::vector<std::string> figures;
  if (view.pass) {
    if (view.pass->has_loss()) figures.push_back(absl::StrCat("loss ", FormatValue(view.pass->loss())));
    for (const auto& metric : view.pass->metrics()) figures.push_back(absl::StrCat(metric.name(), " ", FormatValue(metric.value())));
  } else {
    figures.push_back(absl::StrCat("loss ", FormatValue(view.epoch.loss())));
    for (const auto& [name, sum] : view.epoch.metric_sums) {
      figures.push_back(absl::StrCat(name, " ", FormatValue(view.epoch.samples > 0 ? sum / view.epoch.samples : 0)));
    }
  }
  figures.push_back(absl::StrCat(FormatCount(view.pass ? view.pass->images_per_second() : view.images_per_second), " images/s"));
  if (const auto left = view.TimeLeft()) figures.push_back(absl::StrCat(FormatTime(*left), " left"));
  if (view.memory.peak_bytes() != 0) {
    const uint64_t limit = view.memory.limit_bytes();
    figures.push_back(
        absl::StrCat("memory ", FormatSize(view.memory.peak_bytes()), limit == 0 ? "" : " of ", limit == 0 ? "" : FormatSize(limit)));
  }
  return figures;
}

std::string HeadOf(const RunView& view) {
  if (view.pass) return view.kind == v1::Job::PREDICT ? "predicting" : "evaluating";
  return absl::StrCat("epoch ", OfTotal(view.epoch.epoch, view.total_epochs));
}

// At most `columns` characters, cut between characters of UTF-8.
std::string Cut(const std::string& text, size_t columns) {
  size_t seen = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool begins = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (begins && seen++ == columns) return text.substr(0, i);
  }
  return text;
}

// `columns` wide.
std::string Bar(Position position, size_t columns, const Style& style) {
  const double share = position.of == 0 ? 0 : std::min(1.0, static_cast<double>(position.at) / static_cast<double>(position.of));
  const auto full = static_cast<size_t>(std::lround(share * static_cast<double>(columns)));
  std::string done;
  std::string rest;
  for (size_t i = 0; i < columns; ++i) (i < full ? done : rest) += style.utf8 ? (i < full ? "━" : "─") : (i < full ? "=" : ".");
  return absl::StrCat(Painted(done, "32", style), Painted(rest, "2", style));
}

}  // namespace

Style Style::OfStandardOutput() {
  Style style;
  style.terminal = isatty(STDOUT_FILENO) != 0 && Environment("TERM") != "dumb";
  style.colour = style.terminal && Environment("NO_COLOR").empty();
  style.utf8 = style.terminal && Utf8Locale();
  winsize size{};
  if (style.terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) style.columns = size.ws_col;
  return style;
}

std::string RenderLive(const RunView& view, const Style& style) {
  if (view.step == 0 && !view.pass) return Cut(RenderState(view.state, view.reason), style.columns);
  const Position position = PositionOf(view);
  const std::string head = HeadOf(view);
  const std::string tail = absl::StrCat(OfTotal(position.at, position.of), kGap, absl::StrJoin(Figures(view), kGap));
  const size_t text_columns = head.size() + 2 + tail.size();
  if (position.of != 0 && text_columns + 2 + kNarrowestBar <= style.columns) {
    const size_t bar = std::min(kWidestBar, style.columns - text_columns - 2);
    return absl::StrCat(head, kGap, Bar(position, bar, style), kGap, tail);
  }
  return Cut(absl::StrCat(head, kGap, tail), style.columns);
}

std::string RenderStep(const RunView& view) {
  const Position position = PositionOf(view);
  return absl::StrCat(HeadOf(view), kGap, view.pass ? "batch " : "step ", OfTotal(position.at, position.of), kGap,
                      absl::StrJoin(Figures(view), kGap));
}

std::string RenderEpoch(const v1::EpochRecord& record, const RunView& view, const Style& style) {
  std::vector<std::string> parts = {absl::StrCat("loss ", FormatValue(record.loss()))};
  for (const auto& metric : record.metrics()) parts.push_back(absl::StrCat(metric.name(), " ", FormatValue(metric.value())));
  for (const auto& metric : record.validation()) parts.push_back(absl::StrCat("val_", metric.name(), " ", FormatValue(metric.value())));
  if (view.images_per_second > 0) parts.push_back(absl::StrCat(FormatCount(view.images_per_second), " images/s"));
  parts.push_back(FormatElapsed(absl::Seconds(record.wall_seconds())));
  if (record.bad_samples_size() > 0) parts.push_back(absl::StrCat(record.bad_samples_size(), " bad samples left out"));
  const std::string head = absl::StrCat("epoch ", OfTotal(record.epoch(), view.total_epochs));
  return absl::StrCat(Painted(head, "1", style), kGap, absl::StrJoin(parts, kGap));
}

std::string RenderState(v1::JobState state, const std::string& reason) {
  const std::string name = StateName(state);
  if (reason.empty()) return name;
  // "running on 2 replicas" says it already.
  return absl::StartsWith(reason, name) ? reason : absl::StrCat(name, ": ", reason);
}

std::vector<std::string> CategoriesOf(const BytesByCategory& some, const BytesByCategory& others) {
  std::vector<std::string> names;
  for (const char* name : kCategories) {
    if (some.contains(name) || others.contains(name)) names.emplace_back(name);
  }
  for (const BytesByCategory* bytes : {&some, &others}) {
    std::vector<std::string> unknown;
    for (const auto& entry : *bytes) {
      if (!absl::c_linear_search(names, entry.first)) unknown.push_back(entry.first);
    }
    absl::c_sort(unknown);
    names.insert(names.end(), unknown.begin(), unknown.end());
  }
  return names;
}

std::string PlaceText(const std::string& place) {
  return absl::StartsWith(place, "again ") ? absl::StrCat(place.substr(place.find(' ') + 1), ", computed again in backward") : place;
}

uint64_t TensorBytes(const v1::MemoryProfile& profile) {
  return profile.peak_bytes() + (std::max(profile.threads(), 1u) - 1) * profile.bytes_per_further_thread();
}

std::string RenderMemory(const v1::MemoryReport& memory, const v1::MemoryProfile& predicted) {
  const BytesByCategory &measured = memory.bytes_by_category(), &planned = predicted.bytes_by_category();
  uint64_t total = 0;
  for (const auto& [name, bytes] : measured) total += bytes;
  std::vector<std::vector<std::string>> rows;
  if (!planned.empty()) rows.push_back({"", "measured", "", "predicted"});
  const auto add = [&](absl::string_view name, std::string bytes, std::string share, std::string prediction) {
    rows.push_back({absl::StrCat("  ", name), std::move(bytes), std::move(share)});
    if (!planned.empty()) rows.back().push_back(std::move(prediction));
  };
  const auto size = [](const BytesByCategory& bytes, const std::string& name) {
    const auto found = bytes.find(name);
    return found == bytes.end() ? "-" : FormatSize(found->second);
  };
  for (const std::string& name : CategoriesOf(measured, planned)) {
    const auto found = measured.find(name);
    const uint64_t bytes = found == measured.end() ? 0 : found->second;
    const double share = total == 0 ? 0 : 100 * static_cast<double>(bytes) / static_cast<double>(total);
    add(name, size(measured, name), found == measured.end() ? "" : absl::StrFormat("%.1f %%", share), size(planned, name));
  }
  // Before anything was measured.
  const bool waits = measured.empty() && !planned.empty();
  const auto sum = [&](uint64_t bytes) { return waits ? "-" : FormatSize(bytes); };
  add("in all", sum(total), "", FormatSize(predicted.resident_bytes()));
  add("peak of tensors", sum(memory.peak_bytes()), "", FormatSize(TensorBytes(predicted)));
  if (!waits) add("limit of tensors", memory.limit_bytes() == 0 ? "none" : FormatSize(memory.limit_bytes()), "", "");
  // In all is booked, and a bound.
  const uint64_t expected = predicted.expected_resident_bytes();
  add("resident", sum(memory.resident_bytes()), "", FormatSize(expected > 0 ? expected : predicted.resident_bytes()));
  return RenderTable(rows, {false, true, true, true});
}

std::string RenderResult(const v1::Job& job, const v1::Result& result, const v1::MemoryProfile& predicted, uint32_t replicas) {
  const char* verb = job.kind() == v1::Job::EVALUATE ? "Evaluated" : job.kind() == v1::Job::PREDICT ? "Predicted" : "Trained";
  std::vector<std::string> work;
  if (job.kind() == v1::Job::FIT) {
    work.push_back(absl::StrCat(result.epochs(), result.epochs() == 1 ? " epoch" : " epochs"));
    work.push_back(absl::StrCat(result.steps(), result.steps() == 1 ? " step" : " steps"));
  }
  work.push_back(absl::StrCat(FormatCount(static_cast<double>(result.samples())), " samples"));
  std::string text = absl::StrCat(verb, " ", absl::StrJoin(work, ", "), " in ", FormatElapsed(absl::Seconds(result.wall_seconds())), " (",
                                  FormatCount(result.images_per_second()), " images/s",
                                  replicas > 1 ? absl::StrCat(", ", replicas, " replicas") : "", ")\n");
  std::vector<std::string> figures;
  if (job.kind() != v1::Job::PREDICT) figures.push_back(absl::StrCat("loss ", FormatValue(result.loss())));
  for (const auto& metric : result.metrics()) figures.push_back(absl::StrCat(metric.name(), " ", FormatValue(metric.value())));
  for (const auto& metric : result.validation()) figures.push_back(absl::StrCat("val_", metric.name(), " ", FormatValue(metric.value())));
  if (!figures.empty()) absl::StrAppend(&text, "  ", absl::StrJoin(figures, kGap), "\n");
  if (!result.note().empty()) absl::StrAppend(&text, "  ", result.note(), "\n");
  absl::StrAppend(&text, "Memory of one trainer, by category\n", RenderMemory(result.memory(), predicted));
  return text;
}

std::string FormatValue(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  const double size = std::abs(value);
  return size != 0 && (size < 1e-3 || size >= 1e5) ? absl::StrFormat("%.3e", value) : absl::StrFormat("%.4f", value);
}

std::string FormatTime(absl::Duration duration) {
  const int64_t seconds = absl::ToInt64Seconds(duration + absl::Milliseconds(500));
  if (seconds >= 3600) return absl::StrFormat("%d:%02d:%02d", seconds / 3600, seconds / 60 % 60, seconds % 60);
  return absl::StrFormat("%d:%02d", seconds / 60, seconds % 60);
}

std::string FormatElapsed(absl::Duration duration) {
  const double seconds = absl::ToDoubleSeconds(duration);
  if (seconds >= 99.5) return FormatTime(duration);
  return absl::StrFormat("%.*f s", seconds < 0.995 ? 2 : seconds < 9.95 ? 1 : 0, seconds);
}

std::string FormatCount(double value) {
  if (value < 10) return absl::StrFormat("%.*f", value == std::floor(value) ? 0 : 1, value);
  std::string digits = absl::StrFormat("%.0f", value);
  for (auto i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<size_t>(i), ",");
  return digits;
}

std::string StateName(v1::JobState state) {
  if (state == v1::JOB_STATE_UNSPECIFIED) return "connecting";
  return absl::AsciiStrToLower(v1::JobState_Name(state));
}

std::string RenderTable(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right) {
  std::vector<size_t> widths(right.size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::vector<std::string> lines;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, i == 0 ? "" : kGap, right[i] ? padding : "", row[i], right[i] ? "" : padding);
    }
    absl::StripTrailingAsciiWhitespace(&line);
    lines.push_back(std::move(line));
  }
  return absl::StrJoin(lines, "\n");
}

}  // namespace lockstep
