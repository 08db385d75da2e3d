#pragma once
// Protos as JSON for scripts: field names as in the proto, 64-bit numbers as numbers, enums by name, a list of NamedValue as
// one object, fields of messages that are unset left out, numbers that are not finite as null. Thread-safe: no state.

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>

namespace lockstep {

// REQUIRES: every map in it is the bytes_by_category of a MemoryReport or a MemoryProfile.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

}  // namespace lockstep
