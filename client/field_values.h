#pragma once
// YAML nodes to typed values, with errors that say what was expected and what came. Thread-safe: no state.

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace lockstep {

absl::StatusOr<uint64_t> WholeNumber(const YAML::Node& node, uint64_t least, uint64_t most);
// Finite.
absl::StatusOr<double> Number(const YAML::Node& node);
// true or false.
absl::StatusOr<bool> TrueOrFalse(const YAML::Node& node);
// Not empty.
absl::StatusOr<std::string> Text(const YAML::Node& node);
absl::StatusOr<std::string> OneOf(const YAML::Node& node, const std::vector<std::string>& choices);
absl::StatusOr<uint64_t> Size(const YAML::Node& node);
// A list, or one text with commas: [0.5, 0.5], "0.5,0.5".
absl::StatusOr<std::vector<double>> Numbers(const YAML::Node& node);
// [height, width], "HxW", or one number for both; each 1…65536.
absl::StatusOr<std::vector<uint32_t>> HeightAndWidth(const YAML::Node& node);
// A Keras object: a name, or its serialized form as a mapping or as JSON text. What comes back is a name or JSON.
absl::StatusOr<std::string> NameOrObject(const YAML::Node& node);
// A list of them; or one text, which is a single object if it begins with "{", else names with commas between.
absl::StatusOr<std::vector<std::string>> NamesOrObjects(const YAML::Node& node);

}  // namespace lockstep
