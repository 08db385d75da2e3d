#include "client/field_values.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "client/nearest.h"
#include "client/size.h"

namespace lockstep {
namespace {

std::string Shown(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Scalar: return absl::StrCat("'", node.Scalar(), "'");
    case YAML::NodeType::Sequence: return "a list";
    case YAML::NodeType::Map: return "a mapping";
    default: return "nothing";
  }
}

absl::Status Expected(absl::string_view what, const YAML::Node& node) {
  return absl::InvalidArgumentError(absl::StrCat("expected ", what, ", got ", Shown(node)));
}

// A list's items, or the parts of one text between commas; anything else is one part as it is.
std::vector<YAML::Node> Parts(const YAML::Node& node, char separator = ',') {
  std::vector<YAML::Node> parts;
  if (node.IsSequence()) {
    for (const YAML::Node& item : node) parts.push_back(item);
  } else if (node.IsScalar()) {
    for (absl::string_view part : absl::StrSplit(node.Scalar(), separator)) {
      parts.emplace_back(std::string(absl::StripAsciiWhitespace(part)));
    }
  } else {
    parts.push_back(node);
  }
  return parts;
}

nlohmann::ordered_json ScalarToJson(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  const bool quoted = node.Tag() == "!";
  int64_t whole = 0;
  double number = 0;
  if (quoted) return text;
  if (text == "true" || text == "false") return text == "true";
  if (text == "null" || text == "~") return nullptr;
  if (absl::SimpleAtoi(text, &whole)) return whole;
  if (absl::SimpleAtod(text, &number) && std::isfinite(number)) return number;
  return text;
}

nlohmann::ordered_json ToJson(const YAML::Node& node) {
  nlohmann::ordered_json json;
  switch (node.Type()) {
    case YAML::NodeType::Scalar: return ScalarToJson(node);
    case YAML::NodeType::Sequence:
      json = nlohmann::ordered_json::array();
      for (const YAML::Node& item : node) json.push_back(ToJson(item));
      return json;
    case YAML::NodeType::Map:
      json = nlohmann::ordered_json::object();
      for (const auto& entry : node) json[entry.first.Scalar()] = ToJson(entry.second);
      return json;
    default: return nullptr;
  }
}

}  // namespace

absl::StatusOr<uint64_t> WholeNumber(const YAML::Node& node, uint64_t least, uint64_t most) {
  uint64_t value = 0;
  if (!node.IsScalar() || !absl::SimpleAtoi(node.Scalar(), &value) || value < least || value > most) {
    const std::string range = most >= UINT32_MAX ? absl::StrCat("from ", least, " on") : absl::StrCat("from ", least, " to ", most);
    return Expected(absl::StrCat("a whole number ", range), node);
  }
  return value;
}

absl::StatusOr<double> Number(const YAML::Node& node) {
  double value = 0;
  if (!node.IsScalar() || !absl::SimpleAtod(node.Scalar(), &value) || !std::isfinite(value)) return Expected("a number", node);
  return value;
}

absl::StatusOr<bool> TrueOrFalse(const YAML::Node& node) {
  if (!node.IsScalar() || (node.Scalar() != "true" && node.Scalar() != "false")) return Expected("true or false", node);
  return node.Scalar() == "true";
}

absl::StatusOr<std::string> Text(const YAML::Node& node) {
  if (!node.IsScalar() || node.Scalar().empty()) return Expected("a text", node);
  return node.Scalar();
}

absl::StatusOr<std::string> OneOf(const YAML::Node& node, const std::vector<std::string>& choices) {
  if (node.IsScalar() && absl::c_linear_search(choices, node.Scalar())) return node.Scalar();
  const absl::Status status = Expected(absl::StrCat("one of ", absl::StrJoin(choices, ", ")), node);
  if (!node.IsScalar()) return status;
  const std::string hint = DidYouMean(node.Scalar(), choices);
  return hint.starts_with("did") ? absl::InvalidArgumentError(absl::StrCat(status.message(), "; ", hint)) : status;
}

absl::StatusOr<uint64_t> Size(const YAML::Node& node) {
  if (!node.IsScalar()) return Expected("a size like 512MiB", node);
  return ParseSize(node.Scalar());
}

absl::StatusOr<std::vector<double>> Numbers(const YAML::Node& node) {
  std::vector<double> values;
  for (const YAML::Node& part : Parts(node)) {
    const absl::StatusOr<double> value = Number(part);
    if (!value.ok()) return Expected("numbers", node.IsSequence() ? part : node);
    values.push_back(*value);
  }
  return values;
}

absl::StatusOr<std::vector<uint32_t>> HeightAndWidth(const YAML::Node& node) {
  std::vector<uint32_t> values;
  for (const YAML::Node& part : Parts(node, 'x')) {
    const absl::StatusOr<uint64_t> value = WholeNumber(part, 1, 65536);
    if (!value.ok()) return Expected("a size in pixels, [height, width] or HEIGHTxWIDTH", node.IsSequence() ? part : node);
    values.push_back(static_cast<uint32_t>(*value));
  }
  if (values.size() == 1) values.push_back(values[0]);
  if (values.size() != 2) return Expected("two numbers, height and width", node);
  return values;
}

absl::StatusOr<std::string> NameOrObject(const YAML::Node& node) {
  if (node.IsMap()) return ToJson(node).dump();
  if (!node.IsScalar() || node.Scalar().empty()) return Expected("a name, or a serialized Keras object", node);
  const std::string& text = node.Scalar();
  if (text[0] == '{' && !nlohmann::json::accept(text)) {
    return absl::InvalidArgumentError(absl::StrCat("expected JSON after '{', got '", text, "'"));
  }
  return text;
}

absl::StatusOr<std::vector<std::string>> NamesOrObjects(const YAML::Node& node) {
  const bool one = node.IsMap() || (node.IsScalar() && node.Scalar().starts_with("{"));
  std::vector<std::string> values;
  for (const YAML::Node& part : one ? std::vector<YAML::Node>{node} : Parts(node)) {
    ASSIGN_OR_RETURN(std::string value, NameOrObject(part));
    values.push_back(std::move(value));
  }
  return values;
}

}  // namespace lockstep
