#include "client/plan_picture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "client/render.h"
#include "client/size.h"

namespace lockstep {
namespace {

constexpr double kWidth = 1000, kHeightAlone = 540;
constexpr double kLeft = 90, kRight = 980, kTop = 92, kBottom = 380;
constexpr double kLegend = kHeightAlone - 42, kLegendRow = 22;
// About what a character takes, in the usual text and in bold.
constexpr double kCharacter = 6.6, kBold = 8.5;
constexpr size_t kMostInHeading = 110;
constexpr size_t kMostUnderAxis = 20;
constexpr size_t kNamesUnderAxis = 16;
constexpr uint64_t kMostTicks = 8;

// A stretch of the recording in which the same phase, or the same layer of it, runs.
struct Run {
  size_t first = 0, end = 0;
  std::string name;
};

std::string Word(std::string_view place) { return std::string(place.substr(0, place.find(' '))); }
std::string Rest(std::string_view place) {
  const size_t blank = place.find(' ');
  return blank == std::string_view::npos ? "" : std::string(place.substr(blank + 1));
}

// At most so many characters, cut in the middle, where long names differ least.
std::string Shortened(const std::string& text, size_t most) {
  std::vector<std::string> characters;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80 || characters.empty()) characters.emplace_back();
    characters.back() += c;
  }
  if (characters.size() <= most) return text;
  const size_t head = most / 2;
  std::string cut;
  for (size_t i = 0; i < head; ++i) cut += characters[i];
  cut += "…";
  for (size_t i = characters.size() - (most - head - 1); i < characters.size(); ++i) cut += characters[i];
  return cut;
}

std::string ColourOf(const std::string& phase) {
  if (phase == "forward") return "#4c8bf5";
  if (phase == "backward") return "#e8871e";
  if (phase == "again") return "#2e9e5b";
  return "#8e6bbf";
}

// All ticks in the unit of the highest, with the digits that tell them apart.
std::string Tick(uint64_t bytes, uint64_t step, uint64_t highest) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  double unit = 1;
  size_t power = 0;
  for (; power + 1 < kUnits.size() && static_cast<double>(highest) >= 1024 * unit; ++power) unit *= 1024;
  const double part = unit / static_cast<double>(step);
  const int digits = part <= 1 ? 0 : static_cast<int>(std::ceil(std::log10(part))) + 1;
  return absl::StrFormat("%.*f %s", digits, static_cast<double>(bytes) / unit, kUnits[power]);
}

class Picture {
 public:
  explicit Picture(const v1::JobStatus& status)
      : status_(status),
        profile_(status.profile()),
        of_(profile_.has_host() ? "the CUDA device of one trainer" : "one trainer"),
        height_(kHeightAlone + (profile_.has_host() ? 2 * kLegendRow : 0)) {
    for (const uint64_t bytes : profile_.timeline_bytes()) own_ = std::max(own_, bytes);
    const uint64_t each = profile_.bytes_per_further_thread() > 0 ? profile_.bytes_per_further_thread() : own_;
    const uint64_t threads = std::max(profile_.threads(), 1u);
    others_ = (threads - 1) * each;
    beside_ = profile_.resident_bytes() > threads * each ? profile_.resident_bytes() - threads * each : 0;
    const uint64_t limit = profile_.limit_bytes();
    // A limit far above would press everything to the ground.
    limit_seen_ = limit > 0 && limit < 2 * peak();
    const uint64_t floor = beside_ + others_;
    const uint64_t top = std::max<uint64_t>({peak(), limit_seen_ ? limit : 0, 1});
    // Where the step is little beside the rest, the rest is cut off, down to what still is to be seen.
    const uint64_t lowest_seen = limit_seen_ ? std::min(floor, limit) : floor;
    const uint64_t margin = (top - lowest_seen) / 6;
    if (own_ > 0 && own_ < peak() / 2 && lowest_seen > margin) lowest_ = lowest_seen - margin;
    highest_ = top + (top - lowest_) / 12 + 1;
  }

  std::string Draw() {
    svg_ = absl::StrFormat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" role=\"img\"\n"
        "     font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"12\" fill=\"#222\">\n",
        kWidth, height_, kWidth, height_);
    Heading();
    if (profile_.timeline_bytes().empty()) {
      Text((kLeft + kRight) / 2, (kTop + kBottom) / 2, "middle", "", "The course of memory over a step was not recorded.");
    } else {
      Axis();
      Band(0, beside_, "#b8bec7");
      Band(beside_, beside_ + others_, "#d7dbe0");
      Step();
      CutOff();
      NamesUnderAxis();
      PeakMark();
      Limit();
      Legend();
    }
    return absl::StrCat(svg_, "</svg>\n");
  }

 private:
  uint64_t peak() const { return beside_ + others_ + own_; }
  double X(size_t point) const {
    return kLeft + (kRight - kLeft) * static_cast<double>(point) / static_cast<double>(profile_.timeline_bytes_size());
  }
  double Y(uint64_t bytes) const {
    const uint64_t above = std::max(bytes, lowest_) - lowest_;
    return kBottom - (kBottom - kTop) * static_cast<double>(above) / static_cast<double>(highest_ - lowest_);
  }
  std::string Place(size_t point) const {
    const int at = static_cast<int>(point);
    if (at >= profile_.timeline_places_size()) return "";
    const auto place = static_cast<int>(profile_.timeline_places(at));
    return place < profile_.places_size() ? profile_.places(place) : "";
  }

  void Text(double x, double y, const char* anchor, absl::string_view attributes, const std::string& text) {
    absl::StrAppend(
        &svg_,
        absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s%s>", x, y, anchor, attributes.empty() ? "" : " ", attributes),
        XmlText(text), "</text>\n");
  }
  void Line(double x1, double y1, double x2, double y2, absl::string_view attributes) {
    absl::StrAppend(&svg_, absl::StrFormat("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2, attributes));
  }
  void Rectangle(double x, double y, double width, double height, absl::string_view fill, const std::string& title) {
    absl::StrAppend(&svg_,
                    absl::StrFormat("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"", x, y, width, height, fill));
    absl::StrAppend(&svg_, title.empty() ? "/>\n" : absl::StrCat("><title>", XmlText(title), "</title></rect>\n"));
  }
  void Band(uint64_t from, uint64_t to, absl::string_view fill) {
    if (to > std::max(from, lowest_)) Rectangle(kLeft, Y(to), kRight - kLeft, Y(from) - Y(to), fill, "");
  }

  void Heading() {
    const v1::Job& job = status_.has_resolved() ? status_.resolved() : status_.job();
    const std::string what =
        absl::StrCat(job.model().file_name(), ", batch ", job.batch(),
                     job.virtual_replicas() > 0 ? absl::StrCat(", ", job.virtual_replicas(), " virtual replicas") : "");
    absl::StrAppend(&svg_, "<title>", XmlText(absl::StrCat("Memory of ", of_, " over one step: ", what)), "</title>\n");
    Rectangle(0, 0, kWidth, height_, "#fff", "");
    Text(20, 28, "start", "font-size=\"16\" font-weight=\"600\"",
         absl::StrCat("Memory of ", of_, " over one step: ", Shortened(what, kMostInHeading - 20 - of_.size())));
    if (profile_.timeline_bytes().empty()) return;
    absl::StrAppend(&svg_, "<circle cx=\"26\" cy=\"45.5\" r=\"4\" fill=\"#c5221f\"/>\n");
    const std::string at = profile_.at_peak().empty() ? "" : absl::StrCat(": ", PlaceText(profile_.at_peak()));
    Text(36, 50, "start", "font-size=\"14\"", Shortened(absl::StrCat("Peak ", FormatSize(peak()), at), kMostInHeading));
  }

  void Axis() {
    uint64_t step = 1024;
    while ((highest_ - lowest_) / step > kMostTicks) step *= 2;
    for (uint64_t bytes = (lowest_ + step - 1) / step * step; bytes <= highest_; bytes += step) {
      Line(kLeft, Y(bytes), kRight, Y(bytes), "stroke=\"#e6e6e6\"");
      Text(kLeft - 8, Y(bytes) + 4, "end", "", Tick(bytes, step, highest_));
    }
  }

  // Neighbours with the same name become one. What ran is not known of every point: it belongs to what ran before it.
  template <typename Name>
  std::vector<Run> Runs(Name name) const {
    std::vector<Run> runs;
    for (size_t i = 0; i < static_cast<size_t>(profile_.timeline_bytes_size()); ++i) {
      const std::string here = name(Place(i));
      if (runs.empty()) runs.push_back({0, 0, here});
      if (runs.back().name.empty()) runs.back().name = here;
      if (!here.empty() && here != runs.back().name) runs.push_back({i, i, here});
      runs.back().end = i + 1;
    }
    return runs;
  }

  void Step() {
    const uint64_t floor = beside_ + others_;
    for (const Run& run : Runs(Word)) {
      std::string path = absl::StrFormat("M%.1f %.1f", X(run.first), Y(floor));
      for (size_t i = run.first; i < run.end; ++i) {
        const double y = Y(floor + profile_.timeline_bytes(static_cast<int>(i)));
        absl::StrAppend(&path, absl::StrFormat("V%.1fH%.1f", y, X(i + 1)));
      }
      absl::StrAppend(&svg_, "<path d=\"", path, absl::StrFormat("V%.1fZ\" fill=\"%s\"/>\n", Y(floor), ColourOf(run.name)));
      const double width = X(run.end) - X(run.first);
      if (width > kBold * static_cast<double>(run.name.size() + 3)) {
        Text((X(run.first) + X(run.end)) / 2, kTop - 10, "middle",
             absl::StrCat("font-size=\"13\" font-weight=\"600\" fill=\"", ColourOf(run.name), "\""), run.name);
      }
      if (run.first > 0) Line(X(run.first), kTop, X(run.first), kBottom, "stroke=\"#999\" stroke-dasharray=\"2 3\"");
      if (std::find(phases_.begin(), phases_.end(), run.name) == phases_.end()) phases_.push_back(run.name);
    }
    // For whoever points at it: each layer, and the most that is taken while it runs.
    for (const Run& run : Runs([](const std::string& place) { return place; })) {
      uint64_t most = 0;
      for (size_t i = run.first; i < run.end; ++i) most = std::max(most, profile_.timeline_bytes(static_cast<int>(i)));
      Rectangle(X(run.first), kTop, X(run.end) - X(run.first), kBottom - kTop, "transparent",
                absl::StrCat(run.name.empty() ? "" : absl::StrCat(PlaceText(run.name), ": "), FormatSize(floor + most)));
    }
  }

  void NamesUnderAxis() {
    const auto points = static_cast<size_t>(profile_.timeline_bytes_size());
    std::string before;
    for (size_t slot = 0; slot < kNamesUnderAxis; ++slot) {
      const size_t point = (2 * slot + 1) * points / (2 * kNamesUnderAxis);
      const std::string name = Rest(Place(point));
      if (name.empty() || name == before) continue;
      const double x = (X(point) + X(point + 1)) / 2;
      Line(x, kBottom, x, kBottom + 4, "stroke=\"#777\"");
      Text(x, kBottom + 15, "end", absl::StrFormat("font-size=\"11\" fill=\"#555\" transform=\"rotate(-35 %.1f %.1f)\"", x, kBottom + 15),
           Shortened(name, kMostUnderAxis));
      before = name;
    }
    Line(kLeft, kBottom, kRight, kBottom, "stroke=\"#777\"");
  }

  void CutOff() {
    if (lowest_ == 0) return;
    Text(kRight - 6, kBottom - 7, "end", "font-size=\"11\" fill=\"#555\"",
         absl::StrCat("the axis begins above 0, at ", FormatSize(lowest_)));
  }

  void PeakMark() {
    const auto& bytes = profile_.timeline_bytes();
    const auto at = static_cast<size_t>(std::max_element(bytes.begin(), bytes.end()) - bytes.begin());
    const double x = (X(at) + X(at + 1)) / 2;
    Line(x, kTop, x, kBottom, "stroke=\"#c5221f\" stroke-dasharray=\"4 3\"");
    absl::StrAppend(
        &svg_,
        absl::StrFormat("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"#c5221f\" stroke=\"#fff\" stroke-width=\"1.5\"/>\n", x, Y(peak())));
  }

  void Limit() {
    const uint64_t limit = profile_.limit_bytes();
    if (limit == 0) return;
    const char* style = "font-weight=\"600\" fill=\"#c5221f\" stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\"";
    const std::string text = absl::StrCat("limit ", FormatSize(limit));
    if (!limit_seen_) return Text(kRight, 50, "end", style, absl::StrCat(text, ", above this picture"));
    Line(kLeft, Y(limit), kRight, Y(limit), "stroke=\"#c5221f\" stroke-width=\"1.5\"");
    Text(kLeft + 6, Y(limit) - 5, "start", style, text);
  }

  void Legend() {
    double x = kLeft, y = kLegend;
    const auto entry = [&](const std::string& colour, const std::string& text) {
      Rectangle(x, y - 10, 12, 12, colour, "");
      Text(x + 17, y, "start", "", text);
      x += 17 + kCharacter * static_cast<double>(text.size()) + 22;
    };
    for (const std::string& phase : phases_) {
      entry(ColourOf(phase), phase.empty() ? "the step" : phase == "again" ? "forward, computed again" : phase);
    }
    x = kLeft, y += kLegendRow;
    if (others_ > 0) {
      const uint32_t others = profile_.threads() - 1;
      entry("#d7dbe0", absl::StrCat(others, " more virtual replica", others == 1 ? "" : "s", " at the peak, ", FormatSize(others_)));
    }
    entry("#b8bec7",
          absl::StrCat("beside the step: ", profile_.has_host() ? "state, pictures, workspaces, context, " : "state, pipeline, runtime, ",
                       FormatSize(beside_)));
    if (!profile_.has_host()) return;
    const auto table = [&](const char* where, const BytesByCategory& bytes_by_category, uint64_t all) {
      std::vector<std::string> parts;
      for (const std::string& name : CategoriesOf(bytes_by_category, {})) {
        if (const uint64_t bytes = bytes_by_category.at(name); bytes > 0) parts.push_back(absl::StrCat(name, " ", FormatSize(bytes)));
      }
      y += kLegendRow;
      Text(kLeft, y, "start", "font-size=\"11\" fill=\"#555\"",
           absl::StrCat(where, ", ", FormatSize(all), ": ", absl::StrJoin(parts, ", ")));
    };
    table("On the device", profile_.bytes_by_category(), profile_.resident_bytes());
    table("On the host", profile_.host().bytes_by_category(), profile_.host().resident_bytes());
  }

  const v1::JobStatus& status_;
  const v1::MemoryProfile& profile_;
  const std::string of_;  // whose memory
  const double height_;
  // Of the peak: what one virtual replica's step takes, what those beside it take at most, and the rest of the process.
  uint64_t own_ = 0, others_ = 0, beside_ = 0;
  uint64_t lowest_ = 0, highest_ = 0;  // of the axis
  bool limit_seen_ = false;
  std::vector<std::string> phases_;
  std::string svg_;
};

}  // namespace

std::string XmlText(std::string_view text) {
  std::string out = absl::StrReplaceAll(
      absl::string_view(text.data(), text.size()),
      {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}, {"\xEF\xBF\xBE", " "}, {"\xEF\xBF\xBF", " "}});
  // Control characters are no part of XML, not even escaped.
  std::replace_if(
      out.begin(), out.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  return out;
}

std::string DrawMemory(const v1::JobStatus& status) { return Picture(status).Draw(); }

}  // namespace lockstep
