#include "model/training/config_fields.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/edit_distance.h"

namespace lockstep {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// Case ignored.
size_t Distance(std::string_view a, std::string_view b) {
  return EditDistance(absl::AsciiStrToLower(View(a)), absl::AsciiStrToLower(View(b)));
}

// A value for a message: JSON, cut where it is long.
std::string Shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = absl::StrCat(text.substr(0, 57), "...");
  return text;
}

std::string TextAt(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

}  // namespace

std::string NotKnown(std::string_view name, const std::vector<std::string>& known) {
  std::string text = absl::StrCat("\"", View(name.substr(0, 80)), "\" is not known");
  const auto nearest = std::min_element(known.begin(), known.end(),
                                        [&](const std::string& a, const std::string& b) { return Distance(name, a) < Distance(name, b); });
  if (name.size() <= 80 && nearest != known.end() && Distance(name, *nearest) <= std::max<size_t>(2, name.size() / 3)) {
    absl::StrAppend(&text, "; did you mean \"", *nearest, "\"?");
  } else {
    text += '.';
  }
  absl::StrAppend(&text, " Known: ", absl::StrJoin(known, ", "));
  return text;
}

ConfigFields::ConfigFields(const Json& config, std::string where, Problems& problems)
    : config_(config), where_(std::move(where)), problems_(problems) {
  if (!config_.is_object() && !config_.is_null()) {
    problems_.push_back(absl::StrCat(where_, ": ", Shown(config_), " is not an object of options"));
  }
}

const Json* ConfigFields::Find(const char* key) {
  read_.insert(key);
  if (!config_.is_object()) return nullptr;
  const auto found = config_.find(key);
  return found == config_.end() || found->is_null() ? nullptr : &*found;
}

void ConfigFields::Problem(std::string_view key, std::string_view text) {
  problems_.push_back(absl::StrCat(where_, ".", View(key), ": ", View(text)));
}

double ConfigFields::Number(const char* key, double otherwise) { return NumberOrNull(key).value_or(otherwise); }

std::optional<double> ConfigFields::NumberOrNull(const char* key) {
  const Json* value = Find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    Problem(key, absl::StrCat(Shown(*value), " is not a finite number"));
    return std::nullopt;
  }
  return value->get<double>();
}

int64_t ConfigFields::Int(const char* key, int64_t otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  const bool whole = value->is_number() && std::trunc(value->get<double>()) == value->get<double>();
  if (!whole || std::abs(value->get<double>()) > 1e15) {
    Problem(key, absl::StrCat(Shown(*value), " is not a whole number"));
    return otherwise;
  }
  return static_cast<int64_t>(value->get<double>());
}

bool ConfigFields::Flag(const char* key, bool otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_boolean()) return value->get<bool>();
  Problem(key, absl::StrCat(Shown(*value), " is neither true nor false"));
  return otherwise;
}

std::string ConfigFields::Text(const char* key, const std::string& otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (value->is_string()) return value->get<std::string>();
  Problem(key, absl::StrCat(Shown(*value), " is not a text"));
  return otherwise;
}

std::vector<double> ConfigFields::Numbers(const char* key) {
  const Json* value = Find(key);
  std::vector<double> numbers;
  if (value == nullptr || !value->is_array()) {
    Problem(key, absl::StrCat(value == nullptr ? "missing" : Shown(*value), "; a list of numbers is needed"));
    return numbers;
  }
  for (const Json& item : *value) {
    if (!item.is_number() || !std::isfinite(item.get<double>())) {
      Problem(key, absl::StrCat(Shown(item), " is not a finite number"));
    } else {
      numbers.push_back(item.get<double>());
    }
  }
  return numbers;
}

Json ConfigFields::Raw(const char* key) {
  const Json* value = Find(key);
  return value == nullptr ? Json() : *value;
}

void ConfigFields::Only(const char* key, const std::vector<Json>& values, std::string_view reason) {
  const Json* value = Find(key);
  if (value == nullptr || std::find(values.begin(), values.end(), *value) != values.end()) return;
  Problem(key, absl::StrCat(Shown(*value), " is not supported: ", View(reason)));
}

void ConfigFields::RefuseUnread() {
  if (!config_.is_object()) return;
  const std::vector<std::string> known(read_.begin(), read_.end());
  for (const auto& [key, value] : config_.items()) {
    if (read_.count(key) == 0) problems_.push_back(absl::StrCat(where_, ": option ", NotKnown(key, known)));
  }
}

std::optional<KerasObject> ReadKerasObject(const Json& value, const std::string& where, Problems& problems) {
  if (value.is_string()) return KerasObject{value.get<std::string>(), true, Json::object()};
  const auto refuse = [&](std::string_view text) {
    problems.push_back(absl::StrCat(where, ": ", View(text)));
    return std::nullopt;
  };
  if (!value.is_object() || TextAt(value, "class_name").empty()) {
    return refuse(absl::StrCat(Shown(value), " is neither a name nor a Keras object with a class_name"));
  }
  const std::string class_name = TextAt(value, "class_name"), module = TextAt(value, "module");
  const bool own = absl::StartsWith(module, "keras") || module == "builtins" || module.empty();
  if (!own || absl::StrContains(TextAt(value, "registered_name"), '>')) {
    return refuse(absl::StrCat("\"", class_name, "\" of \"", module, "\" is not Keras's own: its code is not in the file"));
  }
  const auto config = value.find("config");
  if (class_name == "function") {
    if (config == value.end() || !config->is_string()) return refuse("a function without a name");
    return KerasObject{config->get<std::string>(), false, Json::object()};
  }
  return KerasObject{class_name, false, config == value.end() ? Json::object() : *config};
}

std::optional<Json> ParseOverride(const std::string& text, const std::string& where, Problems& problems) {
  const absl::string_view stripped = absl::StripAsciiWhitespace(text);
  if (!absl::StartsWith(stripped, "{")) return Json(std::string(stripped));
  Json parsed = Json::parse(stripped.begin(), stripped.end(), nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_discarded()) return parsed;
  problems.push_back(absl::StrCat(where, ": not valid JSON: ", stripped.substr(0, 60)));
  return std::nullopt;
}

}  // namespace lockstep
