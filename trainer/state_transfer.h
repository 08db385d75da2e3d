#pragma once
// How replicas of a new generation that are a step apart become equal: what a replica knows beside the model's state is written to
// a stream and read back (Fields), and a file goes from one rank to the others over the exchange of verdicts. No libtorch.

#include <cstdint>
#include <functional>
#include <istream>
#include <map>
#include <ostream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/verdict.h"

namespace lockstep {

// Writes values as they are in memory: for processes of one program on machines of one kind.
class StateWriter {
 public:
  explicit StateWriter(std::ostream& out) : out_(out) {}
  template <typename... Values>
  void operator()(Values&... values) {
    (Put(values), ...);
  }

 private:
  template <typename V>
  void Put(V& value) {
    static_assert(std::is_trivially_copyable_v<V>);
    out_.write(reinterpret_cast<const char*>(&value), sizeof(V));
  }
  void Put(std::string& text) {
    uint64_t size = text.size();
    Put(size);
    out_.write(text.data(), static_cast<std::streamsize>(size));
  }
  void Put(LeafUse& use) { (*this)(use.samples, use.bad, use.digest); }
  template <typename A, typename B>
  void Put(std::pair<A, B>& pair) {
    (*this)(pair.first, pair.second);
  }
  template <typename V>
  void Put(std::vector<V>& values) {
    uint64_t size = values.size();
    Put(size);
    for (V& value : values) Put(value);
  }
  template <typename K, typename V>
  void Put(std::map<K, V>& values) {
    std::vector<std::pair<K, V>> entries(values.begin(), values.end());
    Put(entries);
  }

  std::ostream& out_;
};

// The other way round. What the stream does not hold leaves it in failure.
class StateReader {
 public:
  explicit StateReader(std::istream& in) : in_(in) {}
  template <typename... Values>
  void operator()(Values&... values) {
    (Get(values), ...);
  }

 private:
  template <typename V>
  void Get(V& value) {
    static_assert(std::is_trivially_copyable_v<V>);
    in_.read(reinterpret_cast<char*>(&value), sizeof(V));
  }
  uint64_t Size() {
    uint64_t size = 0;
    Get(size);
    return in_.good() ? size : 0;
  }
  void Get(std::string& text) {
    text.resize(Size());
    in_.read(text.data(), static_cast<std::streamsize>(text.size()));
  }
  void Get(LeafUse& use) { (*this)(use.samples, use.bad, use.digest); }
  template <typename A, typename B>
  void Get(std::pair<A, B>& pair) {
    (*this)(pair.first, pair.second);
  }
  template <typename V>
  void Get(std::vector<V>& values) {
    values.resize(Size());
    for (V& value : values) Get(value);
  }
  template <typename K, typename V>
  void Get(std::map<K, V>& values) {
    std::vector<std::pair<K, V>> entries;
    Get(entries);
    values = std::map<K, V>(entries.begin(), entries.end());
  }

  std::istream& in_;
};

// A file as a part of a stream; one that is not there is none afterwards either.
absl::Status AppendFile(const std::string& path, std::ostream& out);
absl::Status ExtractFile(std::istream& in, const std::string& path);

// Everybody's bytes, by rank; see GradientExchange::Exchange.
using ExchangeBytes = std::function<absl::StatusOr<std::vector<std::string>>(std::string_view mine)>;

// Called by all ranks alike: the file at `path`, which is the same on the ranks `sources`, is written to `path` on those that `receive`.
// The sources send in parallel, a chunk each in turn. `me`: this rank.
absl::Status ShareFile(const ExchangeBytes& exchange, const std::vector<int>& sources, int me, bool receives, const std::string& path);

}  // namespace lockstep
