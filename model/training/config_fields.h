#pragma once
// Keras's serialized objects, read option by option. Whatever is wrong, missing or left unread becomes a problem, one line each, that
// names its place ("compile.optimizer.momentum"): nothing in a file is ever ignored silently. No libtorch.
//
// Belongs to one thread. Never throws, whatever the JSON holds.

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "model/keras_archive.h"

namespace lockstep {

using Problems = std::vector<std::string>;

// '"adm" is not known; did you mean "adam"? Known: adam, sgd'. The nearest name is only offered if it is near.
std::string NotKnown(std::string_view name, const std::vector<std::string>& known);

class ConfigFields {
 public:
  // `config` must outlive this object; anything but an object or null is a problem. `where` is the place of the object.
  ConfigFields(const Json& config, std::string where, Problems& problems);

  // The value; `otherwise` where the key is absent or null.
  double Number(const char* key, double otherwise);
  int64_t Int(const char* key, int64_t otherwise);
  bool Flag(const char* key, bool otherwise);
  std::string Text(const char* key, const std::string& otherwise);
  std::optional<double> NumberOrNull(const char* key);
  // A list of numbers; a problem where the key is absent.
  std::vector<double> Numbers(const char* key);
  // The value as it stands; null where the key is absent.
  Json Raw(const char* key);

  // The option may be there, but only with one of these values: anything else is a problem, with `reason`.
  void Only(const char* key, const std::vector<Json>& values, std::string_view reason);
  // An option that has no say in how the object computes.
  void Skip(const char* key) { read_.insert(key); }
  void Problem(std::string_view key, std::string_view text);
  // A problem for each option that nobody asked for. Call it last.
  void RefuseUnread();

 private:
  const Json* Find(const char* key);  // null where absent or null; marks it as read

  const Json& config_;
  const std::string where_;
  Problems& problems_;
  std::set<std::string> read_;
};

// What Keras writes where an object is configured: a name, a function, or a class with its configuration.
struct KerasObject {
  std::string name;    // "adam", "sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"
  bool named = false;  // by a plain string: Keras names metrics by that very string
  Json config = Json::object();
};

// Nothing, and a problem, for what is neither, and for classes that are not Keras's own.
std::optional<KerasObject> ReadKerasObject(const Json& value, const std::string& where, Problems& problems);

// A value as a job states it: Keras's JSON where it begins with '{', else a name. Nothing, and a problem, for broken JSON.
std::optional<Json> ParseOverride(const std::string& text, const std::string& where, Problems& problems);

}  // namespace lockstep
