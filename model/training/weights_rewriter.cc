#include "model/training/weights_rewriter.h"

#include <hdf5.h>

#include <algorithm>
#include <mutex>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/hdf5_lock.h"
#include "model/training/keras_slots.h"

namespace lockstep {
namespace {

// HDF5 tells the operating system's error only in the text of its stack: "… errno = 28, error message = …".
herr_t FindErrno(unsigned, const H5E_error2_t* error, void* found) {
  constexpr absl::string_view kMark = "errno = ";
  const absl::string_view text = error->desc == nullptr ? "" : error->desc;
  const size_t at = text.find(kMark);
  if (at == absl::string_view::npos) return 0;
  const std::vector<absl::string_view> parts = absl::StrSplit(text.substr(at + kMark.size()), absl::MaxSplits(',', 1));
  int number = 0;
  if (absl::SimpleAtoi(parts[0], &number) && number != 0) *static_cast<int*>(found) = number;
  return 0;
}

// What the last call of HDF5 on this thread failed with.
absl::Status Failure(absl::string_view what, const std::string& path) {
  int number = 0;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, &FindErrno, &number);
  if (number != 0) return ErrnoStatus(number, std::string(what), path);
  return absl::DataLossError(absl::StrCat(what, " in ", path, ": HDF5 refuses it; the file is corrupt"));
}

struct ElementType {
  hid_t in_memory;
  hid_t stored;  // little-endian, as Keras's files are
};
ElementType TypeOf(const ArchiveArray& array) {
  if (std::holds_alternative<absl::Span<const float>>(array.values)) return {H5T_NATIVE_FLOAT, H5T_IEEE_F32LE};
  if (std::holds_alternative<absl::Span<const double>>(array.values)) return {H5T_NATIVE_DOUBLE, H5T_IEEE_F64LE};
  return {H5T_NATIVE_INT64, H5T_STD_I64LE};
}

const void* DataOf(const ArchiveArray& array) {
  return std::visit([](const auto& span) { return static_cast<const void*>(span.data()); }, array.values);
}

int64_t CountOf(const ArchiveArray& array) {
  return std::visit([](const auto& span) { return static_cast<int64_t>(span.size()); }, array.values);
}

// An open HDF5 file. REQUIRES: the caller holds Hdf5Lock().
class WeightsFile {
 public:
  explicit WeightsFile(std::string path) : path_(std::move(path)) {}
  ~WeightsFile() {
    if (id_ >= 0) H5Fclose(id_);
  }

  absl::Status Open() {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    const auto close = absl::MakeCleanup([access] { H5Pclose(access); });
    // The file is ours alone, and not every file system has locks.
    H5Pset_file_locking(access, /*use_file_locking=*/0, /*ignore_when_disabled=*/1);
    id_ = H5Fopen(path_.c_str(), H5F_ACC_RDWR, access);
    return id_ >= 0 ? absl::OkStatus() : Failure("cannot open the weights", path_);
  }

  absl::Status Close() {
    const hid_t id = id_;
    id_ = -1;
    const bool flushed = H5Fflush(id, H5F_SCOPE_GLOBAL) >= 0;
    const absl::Status failure = flushed ? absl::OkStatus() : Failure("cannot write the weights", path_);
    if (H5Fclose(id) < 0 && flushed) return Failure("cannot write the weights", path_);
    return failure;
  }

  // False too where a group on the way does not exist.
  bool Has(const std::string& name) const {
    for (size_t end = name.find('/'); end != std::string::npos; end = name.find('/', end + 1)) {
      if (H5Lexists(id_, name.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
    }
    return H5Lexists(id_, name.c_str(), H5P_DEFAULT) > 0;
  }

  absl::Status Remove(const std::string& name) {
    return H5Ldelete(id_, name.c_str(), H5P_DEFAULT) >= 0 ? absl::OkStatus() : Failure(absl::StrCat("cannot replace ", name), path_);
  }

  absl::Status Put(const std::string& name, const ArchiveArray& array) {
    int64_t count = 1;
    for (const int64_t extent : array.shape) count *= extent;
    if (count != CountOf(array)) return absl::InternalError(absl::StrCat(name, " has ", CountOf(array), " elements, its shape ", count));
    hid_t set = Fitting(name, array);
    if (set < 0 && Has(name)) RETURN_IF_ERROR(Remove(name));
    if (set < 0) set = Create(name, array);
    if (set < 0) return Failure(absl::StrCat("cannot make ", name), path_);
    const auto close = absl::MakeCleanup([set] { H5Dclose(set); });
    if (count == 0) return absl::OkStatus();
    const std::shared_ptr<const void> made = array.make ? array.make() : nullptr;
    if (H5Dwrite(set, TypeOf(array).in_memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, made ? made.get() : DataOf(array)) < 0) {
      return Failure(absl::StrCat("cannot write ", name), path_);
    }
    return absl::OkStatus();
  }

 private:
  // The data set, if it is there with this shape and type; else less than 0.
  hid_t Fitting(const std::string& name, const ArchiveArray& array) const {
    if (!Has(name)) return -1;
    const hid_t set = H5Dopen2(id_, name.c_str(), H5P_DEFAULT);
    if (set < 0) return -1;
    const hid_t space = H5Dget_space(set), type = H5Dget_type(set);
    std::vector<hsize_t> extent(static_cast<size_t>(std::max(H5Sget_simple_extent_ndims(space), 0)));
    if (!extent.empty()) H5Sget_simple_extent_dims(space, extent.data(), nullptr);
    const bool fits =
        H5Tequal(type, TypeOf(array).stored) > 0 && std::equal(extent.begin(), extent.end(), array.shape.begin(), array.shape.end(),
                                                               [](hsize_t a, int64_t b) { return static_cast<int64_t>(a) == b; });
    H5Sclose(space);
    H5Tclose(type);
    if (fits) return set;
    H5Dclose(set);
    return -1;
  }

  hid_t Create(const std::string& name, const ArchiveArray& array) {
    const std::vector<hsize_t> extent(array.shape.begin(), array.shape.end());
    const hid_t space = extent.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr);
    const hid_t links = H5Pcreate(H5P_LINK_CREATE), creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_create_intermediate_group(links, 1);
    // The same state makes the same file.
    H5Pset_obj_track_times(creation, 0);
    const hid_t set = H5Dcreate2(id_, name.c_str(), TypeOf(array).stored, space, links, creation, H5P_DEFAULT);
    H5Pclose(creation);
    H5Pclose(links);
    H5Sclose(space);
    return set;
  }

  const std::string path_;
  hid_t id_ = -1;
};

}  // namespace

absl::Status RewriteWeights(const std::string& path, const TrainedWeights& weights) {
  const std::lock_guard<std::mutex> lock(Hdf5Lock());
  WeightsFile file(path);
  RETURN_IF_ERROR(file.Open());
  for (const auto& [name, array] : weights.arrays) RETURN_IF_ERROR(file.Put(name, array));
  for (size_t i = 0; i < weights.optimizer.size(); ++i) {
    RETURN_IF_ERROR(file.Put(absl::StrCat(kOptimizerGroup, "/", i), weights.optimizer[i]));
  }
  // Keras reads none of them if their number is not the optimizer's.
  for (size_t i = weights.optimizer.size(); file.Has(absl::StrCat(kOptimizerGroup, "/", i)); ++i) {
    RETURN_IF_ERROR(file.Remove(absl::StrCat(kOptimizerGroup, "/", i)));
  }
  return file.Close();
}

}  // namespace lockstep
