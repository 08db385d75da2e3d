#include "client/proto_json.h"

#include <cmath>
#include <map>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "proto/progress.pb.h"

namespace lockstep {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using Json = nlohmann::ordered_json;

Json FiniteOrNull(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

// One value of the field: the whole of it (index -1) or one of a list.
Json ValueToJson(const Message& message, const FieldDescriptor& field, int index) {
  const auto& reflection = *message.GetReflection();
  const bool one = index < 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return one ? reflection.GetInt32(message, &field) : reflection.GetRepeatedInt32(message, &field, index);
    case FieldDescriptor::CPPTYPE_INT64:
      return one ? reflection.GetInt64(message, &field) : reflection.GetRepeatedInt64(message, &field, index);
    case FieldDescriptor::CPPTYPE_UINT32:
      return one ? reflection.GetUInt32(message, &field) : reflection.GetRepeatedUInt32(message, &field, index);
    case FieldDescriptor::CPPTYPE_UINT64: {
      const uint64_t value = one ? reflection.GetUInt64(message, &field) : reflection.GetRepeatedUInt64(message, &field, index);
      // A digest, not an amount: most readers of JSON would round it.
      if (field.type() == FieldDescriptor::TYPE_FIXED64) return absl::StrFormat("%016x", value);
      return value;
    }
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return FiniteOrNull(one ? reflection.GetDouble(message, &field) : reflection.GetRepeatedDouble(message, &field, index));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return FiniteOrNull(one ? reflection.GetFloat(message, &field) : reflection.GetRepeatedFloat(message, &field, index));
    case FieldDescriptor::CPPTYPE_BOOL:
      return one ? reflection.GetBool(message, &field) : reflection.GetRepeatedBool(message, &field, index);
    case FieldDescriptor::CPPTYPE_ENUM:
      return (one ? reflection.GetEnum(message, &field) : reflection.GetRepeatedEnum(message, &field, index))->name();
    case FieldDescriptor::CPPTYPE_STRING: {
      const std::string value = one ? reflection.GetString(message, &field) : reflection.GetRepeatedString(message, &field, index);
      return field.type() == FieldDescriptor::TYPE_BYTES ? absl::BytesToHexString(value) : value;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return ToJson(one ? reflection.GetMessage(message, &field) : reflection.GetRepeatedMessage(message, &field, index));
  }
  return nullptr;
}

// Not by reflection: what that keeps beside a map is laid out differently under ThreadSanitizer than in the library.
// REQUIRES: it is bytes_by_category, the only map that clients see.
const google::protobuf::Map<std::string, uint64_t>& BytesByCategory(const Message& message) {
  if (message.GetDescriptor() == v1::MemoryReport::descriptor()) return static_cast<const v1::MemoryReport&>(message).bytes_by_category();
  if (message.GetDescriptor() == v1::HostMemory::descriptor()) return static_cast<const v1::HostMemory&>(message).bytes_by_category();
  return static_cast<const v1::MemoryProfile&>(message).bytes_by_category();
}

Json MapToJson(const Message& message) {
  const auto& bytes = BytesByCategory(message);
  Json json = Json::object();
  for (const auto& [name, value] : std::map<std::string, uint64_t>(bytes.begin(), bytes.end())) json[name] = value;
  return json;
}

Json ListToJson(const Message& message, const FieldDescriptor& field) {
  const int size = message.GetReflection()->FieldSize(message, &field);
  const bool named = field.message_type() == v1::NamedValue::descriptor();
  Json json = named ? Json::object() : Json::array();
  for (int i = 0; i < size; ++i) {
    if (named) {
      const auto& value = static_cast<const v1::NamedValue&>(message.GetReflection()->GetRepeatedMessage(message, &field, i));
      json[value.name()] = FiniteOrNull(value.value());
    } else {
      json.push_back(ValueToJson(message, field, i));
    }
  }
  return json;
}

}  // namespace

Json ToJson(const Message& message) {
  Json json = Json::object();
  const auto& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    if (field.is_map()) {
      json[field.name()] = MapToJson(message);
    } else if (field.is_repeated()) {
      json[field.name()] = ListToJson(message, field);
    } else if (!field.has_presence() || message.GetReflection()->HasField(message, &field)) {
      json[field.name()] = ValueToJson(message, field, -1);
    }
  }
  return json;
}

}  // namespace lockstep
