#include "client/plan_picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <regex>
#include <vector>

#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kMiB = 1 << 20;

// Up and down again, forward and backward through the layers.
v1::JobStatus Planned(int layers, const std::string& suffix = "") {
  v1::JobStatus status;
  status.mutable_job()->mutable_model()->set_file_name("m.keras");
  status.mutable_job()->set_batch(64);
  v1::MemoryProfile& profile = *status.mutable_profile();
  profile.add_places("");
  for (const char* phase : {"forward", "backward"}) {
    for (int i = 0; i < layers; ++i) {
      const bool forward = phase[0] == 'f';
      profile.add_places(absl::StrCat(phase, " conv", forward ? i : layers - 1 - i, suffix));
      profile.add_timeline_places(static_cast<uint32_t>(profile.places_size() - 1));
      profile.add_timeline_bytes(static_cast<uint64_t>(forward ? i + 1 : layers - i) * kMiB);
    }
  }
  profile.set_timeline_bytes(layers, static_cast<uint64_t>(layers + 10) * kMiB);
  profile.set_at_peak(absl::StrCat("backward conv", layers - 1, suffix));
  profile.set_threads(2);
  profile.set_bytes_per_further_thread(static_cast<uint64_t>(layers + 10) * kMiB);
  profile.set_resident_bytes(100 * kMiB + 2 * static_cast<uint64_t>(layers + 10) * kMiB);
  return status;
}

// What is wrong with it as XML: elements that do not nest, bare special characters. Nothing: well-formed, as far as we write it.
std::optional<std::string> Malformed(const std::string& text) {
  std::vector<std::string> open;
  static const std::regex tag(R"re(<(/?)([a-z]+)((?:\s+[A-Za-z0-9:-]+="[^"<]*")*)\s*(/?)>)re");
  static const std::regex reference("&(amp|lt|gt|quot|#39);");
  std::string rest;
  size_t at = 0;
  for (std::sregex_iterator match(text.begin(), text.end(), tag), end; match != end; ++match) {
    rest += text.substr(at, static_cast<size_t>(match->position()) - at) + (*match)[3].str();
    at = static_cast<size_t>(match->position() + match->length());
    if ((*match)[1] == "/") {
      if (open.empty() || open.back() != (*match)[2]) return absl::StrCat("</", (*match)[2].str(), "> closes nothing");
      open.pop_back();
    } else if ((*match)[4] != "/") {
      open.push_back((*match)[2]);
    }
  }
  if (!open.empty()) return absl::StrCat(open.back(), " is not closed");
  rest = std::regex_replace(rest + text.substr(at), reference, "");
  const size_t bad = rest.find_first_of("<>&");
  if (bad != std::string::npos) return absl::StrCat("bare: ", rest.substr(bad, 40));
  return std::nullopt;
}

TEST(DrawMemory, HasTheAxisThePhasesThePeakAndItsLayer) {
  const std::string svg = DrawMemory(Planned(30));
  EXPECT_EQ(Malformed(svg), std::nullopt);
  EXPECT_THAT(svg, HasSubstr(">Peak 180 MiB: backward conv29</text>"));
  EXPECT_THAT(svg, HasSubstr(">forward</text>"));
  EXPECT_THAT(svg, HasSubstr(">backward</text>"));
  EXPECT_THAT(svg, Not(HasSubstr("computed again")));
  EXPECT_THAT(svg, HasSubstr(">176 MiB</text>"));
  EXPECT_THAT(svg, HasSubstr("<title>backward conv7: 148 MiB</title>")) << "100 beside the step, 40 of the other replica, 8 of its own";
  EXPECT_THAT(svg, HasSubstr(">1 more virtual replica at the peak, 40.0 MiB</text>"));
  EXPECT_THAT(svg, HasSubstr(">beside the step: state, pipeline, runtime, 100 MiB</text>"));
  EXPECT_THAT(svg, Not(HasSubstr("limit")));
}

TEST(DrawMemory, OfACudaDeviceSaysSoAndHasTheHostBesideIt) {
  v1::JobStatus status = Planned(30);
  v1::MemoryProfile& profile = *status.mutable_profile();
  profile.set_threads(1);
  (*profile.mutable_bytes_by_category())["workspace"] = 100 * kMiB;
  (*profile.mutable_bytes_by_category())["checkpoint_copies"] = 0;
  (*profile.mutable_host()->mutable_bytes_by_category())["runtime"] = 2048 * kMiB;
  profile.mutable_host()->set_resident_bytes(2048 * kMiB);
  const std::string svg = DrawMemory(status);
  EXPECT_EQ(Malformed(svg), std::nullopt);
  EXPECT_THAT(svg, HasSubstr(">Memory of the CUDA device of one trainer over one step: m.keras"));
  EXPECT_THAT(svg, HasSubstr(">beside the step: state, pictures, workspaces, context, 140 MiB</text>"));
  EXPECT_THAT(svg, HasSubstr(">On the device, 180 MiB: workspace 100 MiB</text>"));
  EXPECT_THAT(svg, HasSubstr(">On the host, 2.00 GiB: runtime 2.00 GiB</text>"));
  EXPECT_THAT(svg, HasSubstr("viewBox=\"0 0 1000 584\"")) << "with room for both";
  EXPECT_THAT(DrawMemory(Planned(30)), Not(HasSubstr("On the host")));
}

TEST(DrawMemory, WhatIsComputedAgainHasAColourOfItsOwn) {
  v1::JobStatus status = Planned(30);
  status.mutable_profile()->set_places(35, "again conv25");
  EXPECT_THAT(DrawMemory(status), HasSubstr(">forward, computed again</text>"));
  EXPECT_THAT(DrawMemory(status), HasSubstr("<title>conv25, computed again in backward: "));
}

TEST(DrawMemory, TheLimitIsALineUnlessItIsFarAway) {
  v1::JobStatus status = Planned(30);
  status.mutable_profile()->set_limit_bytes(170 * kMiB);
  EXPECT_THAT(DrawMemory(status), HasSubstr(">limit 170 MiB</text>"));
  EXPECT_EQ(Malformed(DrawMemory(status)), std::nullopt);
  status.mutable_profile()->set_limit_bytes(64'000 * kMiB);
  EXPECT_THAT(DrawMemory(status), HasSubstr(">limit 62.5 GiB, above this picture</text>"));
}

TEST(DrawMemory, WhereTheStepIsLittleTheAxisBeginsAboveZero) {
  v1::JobStatus status = Planned(30);
  EXPECT_THAT(DrawMemory(status), HasSubstr("the axis begins above 0, at 133 MiB"));
  status.mutable_profile()->set_limit_bytes(120 * kMiB);
  EXPECT_THAT(DrawMemory(status), HasSubstr("the axis begins above 0, at 110 MiB")) << "the limit is to be seen";
  status.mutable_profile()->set_limit_bytes(1 * kMiB);
  EXPECT_THAT(DrawMemory(status), Not(HasSubstr("the axis begins")));
  status = Planned(30);
  status.mutable_profile()->set_threads(1);
  status.mutable_profile()->set_resident_bytes(50 * kMiB);
  EXPECT_THAT(DrawMemory(status), Not(HasSubstr("the axis begins"))) << "most of it is the step";
}

TEST(DrawMemory, TicksAreToldApart) {
  v1::JobStatus status = Planned(3);
  status.mutable_profile()->set_threads(1);
  status.mutable_profile()->set_resident_bytes(4096 * kMiB);
  const std::string svg = DrawMemory(status);
  EXPECT_THAT(svg, HasSubstr(">3.9883 GiB</text>"));
  EXPECT_THAT(svg, HasSubstr(">3.9902 GiB</text>"));
}

TEST(DrawMemory, NamesOfAnyLengthAndKindAreCutAndEscaped) {
  const std::string nasty = absl::StrCat("<script>&\"'\x01", std::string(300, 'x'), "]]>ö");
  v1::JobStatus status = Planned(300, nasty);
  status.mutable_job()->mutable_model()->set_file_name("a&b<c>\".keras");
  const std::string svg = DrawMemory(status);
  EXPECT_EQ(Malformed(svg), std::nullopt);
  EXPECT_THAT(svg, Not(HasSubstr("<script")));
  EXPECT_THAT(svg, HasSubstr("a&amp;b&lt;c&gt;&quot;.keras"));
  static const std::regex text(">([^<]*)</text>");
  for (std::sregex_iterator match(svg.begin(), svg.end(), text), end; match != end; ++match) {
    EXPECT_LE((*match)[1].length(), 160) << "escapes included";
  }
}

TEST(DrawMemory, WithoutARecordedCourseItSaysSo) {
  for (v1::JobStatus status : {v1::JobStatus(), Planned(1)}) {
    status.mutable_profile()->clear_timeline_bytes();
    EXPECT_THAT(DrawMemory(status), HasSubstr("was not recorded"));
    EXPECT_EQ(Malformed(DrawMemory(status)), std::nullopt);
  }
}

TEST(DrawMemory, PlacesThatAreMissingOrUnknownAreLeftOut) {
  v1::JobStatus status = Planned(5);
  status.mutable_profile()->set_timeline_places(3, 99);
  status.mutable_profile()->mutable_timeline_places()->Truncate(7);
  EXPECT_EQ(Malformed(DrawMemory(status)), std::nullopt);
  status.mutable_profile()->clear_places();
  EXPECT_THAT(DrawMemory(status), HasSubstr(">the step</text>"));
}

TEST(XmlText, HasNothingThatXmlCannotHold) {
  EXPECT_EQ(XmlText("a<b>&\"c'\x01\n\x7F"), "a&lt;b&gt;&amp;&quot;c&#39;   ");
  EXPECT_EQ(XmlText("ö…\xEF\xBF\xBE"), "ö… ");
}

}  // namespace
}  // namespace lockstep
