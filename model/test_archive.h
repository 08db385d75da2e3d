#pragma once
// Makes `.keras` files for tests, without Keras. One thread.

#include <map>
#include <string>
#include <vector>

#include "model/keras_archive.h"

namespace lockstep {

class TestArchive {
 public:
  // A Sequential of these layers (their class_name and config; names are "layer_0", "layer_1" … unless given) over an input of
  // `batch_shape`, whose first extent is null.
  static TestArchive Sequential(const Json& batch_shape, const std::vector<std::pair<std::string, Json>>& layers);

  Json config = Json::object();
  std::map<std::string, std::string> entries;  // beside or in place of those that are made
  std::vector<std::string> left_out;

  // Values in row-major order, stored as float64.
  TestArchive& Array(const std::string& path, const std::vector<int64_t>& shape, std::vector<double> values);
  // All of this value.
  TestArchive& Filled(const std::string& path, const std::vector<int64_t>& shape, double value);

  std::string Bytes() const;

 private:
  struct Values {
    std::vector<int64_t> shape;
    std::vector<double> values;
  };
  std::string Weights() const;

  std::map<std::string, Values> arrays_;
};

}  // namespace lockstep
