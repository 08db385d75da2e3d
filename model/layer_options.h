#pragma once
// A layer's configuration, read option by option. Whatever is wrong, missing or left unread becomes a problem: no option of a file
// is ever ignored silently. Belongs to one thread.

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/keras_archive.h"

namespace lockstep {

class LayerOptions {
 public:
  explicit LayerOptions(const Json& config);

  // The value; `otherwise` where the key is absent (or null). Without `otherwise` the key must be there.
  int64_t Int(const char* key, std::optional<int64_t> otherwise = std::nullopt);
  double Number(const char* key, std::optional<double> otherwise = std::nullopt);
  bool Flag(const char* key, bool otherwise);
  std::string Choice(const char* key, std::initializer_list<const char*> allowed, const char* otherwise);
  std::optional<double> NumberOrNull(const char* key);
  // One whole number for both, or two.
  std::pair<int64_t, int64_t> Pair(const char* key, int64_t otherwise, int64_t least = 1);
  // One whole number or a list of them.
  std::vector<int64_t> Ints(const char* key, std::vector<int64_t> otherwise = {});
  // The value as it stands; null where it is absent.
  Json Raw(const char* key);

  // The option may be there, but only with this value: anything else is a problem.
  void Only(const char* key, const Json& value);
  // Options that say nothing about how a loaded model runs: initializers (the archive has the weights), seeds.
  void Skip(std::initializer_list<const char*> keys);
  void Problem(std::string text) { problems_.push_back(std::move(text)); }

  bool trainable() const { return trainable_; }
  // All so far, and one for each option that nobody read. Call it last.
  std::vector<std::string> Problems() const;

 private:
  const Json* Find(const char* key);  // null where absent or null; marks it as read
  void ReadCommon();

  const Json& config_;
  std::set<std::string> read_;
  std::vector<std::string> problems_;
  bool trainable_ = true;
};

}  // namespace lockstep
