#include "tests/parity/array_file.h"

#include <ATen/ATen.h>
#include <hdf5.h>

#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace lockstep {
namespace {

hid_t NativeType(at::ScalarType type) {
  return type == at::kFloat ? H5T_NATIVE_FLOAT : type == at::kDouble ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
}

}  // namespace

ArrayFile::ArrayFile(int64_t id, std::string path) : id_(id), path_(std::move(path)) {}
ArrayFile::ArrayFile(ArrayFile&& other) noexcept : id_(std::exchange(other.id_, -1)), path_(std::move(other.path_)) {}
ArrayFile::~ArrayFile() {
  if (id_ >= 0) H5Fclose(id_);
}

absl::StatusOr<ArrayFile> ArrayFile::OpenToRead(const std::string& path) {
  const hid_t id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  if (id < 0) return absl::DataLossError(absl::StrCat(path, " is not a readable HDF5 file"));
  return ArrayFile(id, path);
}

absl::StatusOr<ArrayFile> ArrayFile::Create(const std::string& path) {
  const hid_t id = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  if (id < 0) return absl::UnavailableError(absl::StrCat("cannot create ", path));
  return ArrayFile(id, path);
}

bool ArrayFile::Has(const std::string& name) const { return H5Lexists(id_, name.c_str(), H5P_DEFAULT) > 0; }

absl::StatusOr<at::Tensor> ArrayFile::Read(const std::string& name, at::ScalarType type) const {
  const hid_t set = H5Dopen2(id_, name.c_str(), H5P_DEFAULT);
  if (set < 0) return absl::InvalidArgumentError(absl::StrCat(path_, " holds no ", name));
  const hid_t space = H5Dget_space(set);
  const auto close = absl::MakeCleanup([&] { H5Sclose(space), H5Dclose(set); });
  std::vector<hsize_t> extent(static_cast<size_t>(H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, extent.data(), nullptr);
  at::Tensor value = at::empty(std::vector<int64_t>(extent.begin(), extent.end()), at::TensorOptions().dtype(type));
  if (H5Dread(set, NativeType(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, value.data_ptr()) < 0) {
    return absl::DataLossError(absl::StrCat(path_, ": ", name, " cannot be read"));
  }
  return value;
}

absl::Status ArrayFile::Write(const std::string& name, const at::Tensor& value) {
  const at::Tensor dense = value.detach().contiguous();
  const std::vector<hsize_t> extent(dense.sizes().begin(), dense.sizes().end());
  const hid_t links = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  const hid_t space = H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr);
  const hid_t type = NativeType(dense.scalar_type());
  const hid_t set = H5Dcreate2(id_, name.c_str(), type, space, links, H5P_DEFAULT, H5P_DEFAULT);
  const bool good = set >= 0 && H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, dense.data_ptr()) >= 0;
  if (set >= 0) H5Dclose(set);
  H5Sclose(space);
  H5Pclose(links);
  return good ? absl::OkStatus() : absl::UnavailableError(absl::StrCat(path_, ": ", name, " cannot be written"));
}

}  // namespace lockstep
