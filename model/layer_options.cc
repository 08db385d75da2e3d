#include "model/layer_options.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace lockstep {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;  // of any whole number in a configuration

bool IsWhole(const Json& value) {
  if (value.is_number_integer())
    return value.is_number_unsigned() ? value.get<uint64_t>() <= uint64_t{kLargest} : std::abs(value.get<int64_t>()) <= kLargest;
  return value.is_number_float() && std::floor(value.get<double>()) == value.get<double>() && std::fabs(value.get<double>()) <= kLargest;
}

std::string Shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() > 120 ? text.substr(0, 120) + "…" : text;
}

}  // namespace

LayerOptions::LayerOptions(const Json& config) : config_(config) { ReadCommon(); }

void LayerOptions::ReadCommon() {
  if (!config_.is_object()) return Problem("has no configuration");
  // The dtype is the whole model's: see DtypePolicies in model/graph.h.
  Skip({"name", "dtype"});
  trainable_ = Flag("trainable", true);
}

const Json* LayerOptions::Find(const char* key) {
  read_.insert(key);
  if (!config_.is_object()) return nullptr;
  const auto found = config_.find(key);
  return found == config_.end() || found->is_null() ? nullptr : &*found;
}

int64_t LayerOptions::Int(const char* key, std::optional<int64_t> otherwise) {
  const Json* value = Find(key);
  if (value != nullptr && IsWhole(*value)) return static_cast<int64_t>(value->get<double>());
  if (value != nullptr || !otherwise.has_value())
    Problem(absl::StrCat("option ", key, " must be a whole number", value ? ", not " + Shown(*value) : ""));
  return otherwise.value_or(1);
}

double LayerOptions::Number(const char* key, std::optional<double> otherwise) {
  const Json* value = Find(key);
  if (value != nullptr && value->is_number()) return value->get<double>();
  if (value != nullptr || !otherwise.has_value())
    Problem(absl::StrCat("option ", key, " must be a number", value ? ", not " + Shown(*value) : ""));
  return otherwise.value_or(1);
}

std::optional<double> LayerOptions::NumberOrNull(const char* key) {
  if (Find(key) == nullptr) return std::nullopt;
  return Number(key);
}

bool LayerOptions::Flag(const char* key, bool otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) Problem(absl::StrCat("option ", key, " must be true or false, not ", Shown(*value)));
  return value->is_boolean() ? value->get<bool>() : otherwise;
}

std::string LayerOptions::Choice(const char* key, std::initializer_list<const char*> allowed, const char* otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  for (const char* one : allowed) {
    if (value->is_string() && *value == one) return one;
  }
  Problem(absl::StrCat("option ", key, " is ", Shown(*value), ", which is not supported (", absl::StrJoin(allowed, ", "), " is)"));
  return otherwise;
}

std::vector<int64_t> LayerOptions::Ints(const char* key, std::vector<int64_t> otherwise) {
  const Json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (IsWhole(*value)) return {static_cast<int64_t>(value->get<double>())};
  std::vector<int64_t> result;
  bool good = value->is_array();
  if (good) {
    for (const Json& one : *value) {
      good = good && IsWhole(one);
      if (good) result.push_back(static_cast<int64_t>(one.get<double>()));
    }
  }
  if (good) return result;
  Problem(absl::StrCat("option ", key, " must be a list of whole numbers, not ", Shown(*value)));
  return otherwise;
}

std::pair<int64_t, int64_t> LayerOptions::Pair(const char* key, int64_t otherwise, int64_t least) {
  std::vector<int64_t> values = Ints(key, {otherwise, otherwise});
  if (values.size() == 1) values.push_back(values[0]);
  if (values.size() != 2 || values[0] < least || values[1] < least) {
    Problem(absl::StrCat("option ", key, " must be one or two whole numbers of at least ", least));
    return {otherwise, otherwise};
  }
  return {values[0], values[1]};
}

Json LayerOptions::Raw(const char* key) {
  const Json* value = Find(key);
  return value == nullptr ? Json(nullptr) : *value;
}

void LayerOptions::Only(const char* key, const Json& value) {
  const Json* found = Find(key);
  if (found != nullptr && *found != value)
    Problem(absl::StrCat("option ", key, " is ", Shown(*found), ", which is not supported",
                         value.is_null() ? "" : absl::StrCat("; only ", Shown(value), " is")));
}

void LayerOptions::Skip(std::initializer_list<const char*> keys) { read_.insert(keys.begin(), keys.end()); }

std::vector<std::string> LayerOptions::Problems() const {
  std::vector<std::string> problems = problems_;
  if (!config_.is_object()) return problems;
  for (const auto& [key, value] : config_.items()) {
    if (read_.count(key) == 0 && !value.is_null()) problems.push_back(absl::StrCat("option ", key, " (", Shown(value), ") is not known"));
  }
  return problems;
}

}  // namespace lockstep
