#include "client/size.h"

#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace lockstep {
namespace {

// 0: no such unit.
double Multiplier(std::string unit) {
  absl::AsciiStrToLower(&unit);
  if (unit.empty() || unit == "b") return 1;
  const size_t power = std::string_view("kmgt").find(unit[0]);
  if (power == std::string_view::npos) return 0;
  const std::string rest = unit.substr(1);
  if (rest.empty() || rest == "ib" || rest == "i") return std::pow(1024.0, static_cast<double>(power + 1));
  if (rest == "b") return std::pow(1000.0, static_cast<double>(power + 1));
  return 0;
}

}  // namespace

absl::StatusOr<uint64_t> ParseSize(std::string_view text) {
  const std::string whole(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())));
  size_t digits = 0;
  while (digits < whole.size() && (std::isdigit(static_cast<unsigned char>(whole[digits])) != 0 || whole[digits] == '.')) ++digits;
  char* end = nullptr;
  const std::string number_text = whole.substr(0, digits);
  const double number = std::strtod(number_text.c_str(), &end);
  const double multiplier = Multiplier(std::string(absl::StripAsciiWhitespace(whole.substr(digits))));
  if (digits == 0 || *end != '\0' || multiplier == 0) {
    return absl::InvalidArgumentError(absl::StrCat("expected a size like 512MiB, 8GiB or 65536, got '", whole, "'"));
  }
  const double bytes = number * multiplier;
  if (bytes > 9.2e18) return absl::InvalidArgumentError(absl::StrCat("the size '", whole, "' is too large"));
  return static_cast<uint64_t>(std::llround(bytes));
}

std::string FormatSize(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " B");
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1023.5 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  const int decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return absl::StrFormat("%.*f %s", decimals, value, kUnits[unit]);
}

}  // namespace lockstep
