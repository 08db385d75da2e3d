#include "model/test_archive.h"

#include <hdf5.h>
#include <zip.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "base/test_folder.h"

namespace lockstep {
namespace {

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

TestArchive TestArchive::Sequential(const Json& batch_shape, const std::vector<std::pair<std::string, Json>>& layers) {
  TestArchive archive;
  Json list = Json::array();
  list.push_back({{"class_name", "InputLayer"}, {"config", {{"name", "input"}, {"batch_shape", batch_shape}}}});
  for (const auto& [class_name, config] : layers) {
    Json own = config;
    if (!own.contains("name")) own["name"] = absl::StrCat("layer_", list.size() - 1);
    list.push_back({{"class_name", class_name}, {"config", own}});
  }
  archive.config = {{"class_name", "Sequential"}, {"config", {{"name", "test"}, {"layers", list}}}};
  return archive;
}

TestArchive& TestArchive::Array(const std::string& path, const std::vector<int64_t>& shape, std::vector<double> values) {
  arrays_[path] = {shape, std::move(values)};
  return *this;
}

TestArchive& TestArchive::Filled(const std::string& path, const std::vector<int64_t>& shape, double value) {
  size_t count = 1;
  for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
  return Array(path, shape, std::vector<double>(count, value));
}

std::string TestArchive::Weights() const {
  const TestFolder folder;
  const std::string path = folder / "weights";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  for (const auto& [name, array] : arrays_) {
    const std::vector<hsize_t> extent(array.shape.begin(), array.shape.end());
    const hid_t space = H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr);
    const hid_t set = H5Dcreate2(file, name.c_str(), H5T_NATIVE_DOUBLE, space, links, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, array.values.data());
    H5Dclose(set);
    H5Sclose(space);
  }
  H5Pclose(links);
  H5Fclose(file);
  return Contents(path);
}

std::string TestArchive::Bytes() const {
  std::map<std::string, std::string> all = {
      {"metadata.json", R"({"keras_version": "3.15.1"})"}, {"config.json", config.dump()}, {"model.weights.h5", Weights()}};
  for (const auto& [name, bytes] : entries) all[name] = bytes;
  for (const std::string& name : left_out) all.erase(name);
  const TestFolder folder;
  const std::string path = folder / "archive";
  zip_t* zip = zip_open(path.c_str(), ZIP_CREATE, nullptr);
  for (const auto& [name, bytes] : all) {
    const zip_int64_t index = zip_file_add(zip, name.c_str(), zip_source_buffer(zip, bytes.data(), bytes.size(), 0), 0);
    zip_set_file_compression(zip, static_cast<zip_uint64_t>(index), ZIP_CM_STORE, 0);
  }
  zip_close(zip);
  return Contents(path);
}

}  // namespace lockstep
