#include "model/keras_archive.h"

#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/hdf5_lock.h"

namespace lockstep {
namespace {

constexpr char kConfig[] = "config.json";
constexpr char kMetadata[] = "metadata.json";
constexpr char kWeights[] = "model.weights.h5";
constexpr uint64_t kMaxJsonBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxWeightsBytes = uint64_t{32} << 30;
// Beyond this size an entry or a data set may not expand to more than kMaxExpansion times what is stored for it.
constexpr uint64_t kBombFloorBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxExpansion = 100;
constexpr int kMaxJsonDepth = 200;
constexpr uint64_t kPieceBytes = uint64_t{1} << 20;
constexpr size_t kMaxArrays = 1'000'000;
constexpr int kMaxRank = 8;

bool IsBomb(uint64_t declared, uint64_t stored) {
  return declared > kBombFloorBytes && declared / kMaxExpansion > std::max<uint64_t>(stored, 1);
}

// Hands an entry over piece by piece; `begin` is told how large it is.
absl::Status ReadPieces(zip_t* zip, const std::string& file, const char* entry, uint64_t max_bytes,
                        const std::function<void(uint64_t size)>& begin, const std::function<absl::Status(std::string_view piece)>& take) {
  zip_stat_t stat;
  zip_stat_init(&stat);
  if (zip_stat(zip, entry, 0, &stat) != 0 || (stat.valid & ZIP_STAT_SIZE) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, " holds no ", entry, ": it is not a whole .keras file; save the model again with model.save()"));
  }
  if (stat.size > max_bytes || IsBomb(stat.size, (stat.valid & ZIP_STAT_COMP_SIZE) != 0 ? stat.comp_size : 0)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": entry ", entry, " would unpack to ", stat.size,
                                                   " bytes, which is refused (at most ", max_bytes, ", and ", kMaxExpansion,
                                                   " times its packed size)"));
  }
  zip_file_t* handle = zip_fopen(zip, entry, 0);
  if (handle == nullptr) return absl::DataLossError(absl::StrCat(file, ": entry ", entry, " cannot be opened: ", zip_strerror(zip)));
  auto close = absl::MakeCleanup([&] { zip_fclose(handle); });
  begin(stat.size);
  std::string piece(std::min(stat.size, kPieceBytes), '\0');
  uint64_t done = 0;
  while (done < stat.size) {
    const zip_int64_t count = zip_fread(handle, piece.data(), std::min<uint64_t>(piece.size(), stat.size - done));
    if (count <= 0)
      return absl::DataLossError(
          absl::StrCat(file, ": entry ", entry, " is corrupt after ", done, " of ", stat.size, " bytes: ", zip_file_strerror(handle)));
    RETURN_IF_ERROR(take(std::string_view(piece).substr(0, static_cast<size_t>(count))));
    done += count;
  }
  char beyond;  // the checksum is compared at the end of the entry
  if (zip_fread(handle, &beyond, 1) != 0)
    return absl::DataLossError(absl::StrCat(file, ": entry ", entry, " is corrupt: ", zip_file_strerror(handle)));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadEntry(zip_t* zip, const std::string& file, const char* entry, uint64_t max_bytes) {
  std::string bytes;
  RETURN_IF_ERROR(ReadPieces(
      zip, file, entry, max_bytes, [&](uint64_t size) { bytes.reserve(size); },
      [&](std::string_view piece) {
        bytes.append(piece);
        return absl::OkStatus();
      }));
  return bytes;
}

// Into a file that is open and empty.
absl::Status ExtractEntry(zip_t* zip, const std::string& file, const char* entry, uint64_t max_bytes, int to, const std::string& path) {
  return ReadPieces(
      zip, file, entry, max_bytes, [](uint64_t) {}, [&](std::string_view piece) { return WriteAll(to, piece, path); });
}

absl::StatusOr<Json> ParseJson(const std::string& text, const std::string& file, const char* entry) {
  bool too_deep = false;
  Json json = Json::parse(
      text,
      [&](int depth, Json::parse_event_t, Json&) {
        too_deep = too_deep || depth > kMaxJsonDepth;
        return !too_deep;
      },
      /*allow_exceptions=*/false);
  if (too_deep) return absl::InvalidArgumentError(absl::StrCat(file, ": ", entry, " is nested deeper than ", kMaxJsonDepth, " levels"));
  if (json.is_discarded() || !json.is_object()) return absl::DataLossError(absl::StrCat(file, ": ", entry, " is not a JSON object"));
  return json;
}

std::string ShapeText(const std::vector<int64_t>& shape) { return absl::StrCat("(", absl::StrJoin(shape, ", "), ")"); }

}  // namespace

std::mutex& Hdf5Lock() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

// The weights file: on disk, or, of an archive that was given as bytes, held in memory by HDF5's core driver. Every method takes the
// process-wide lock.
class KerasArchive::WeightsFile {
 public:
  static absl::StatusOr<std::unique_ptr<WeightsFile>> Open(std::string image, const std::string& file) {
    std::lock_guard<std::mutex> lock(Hdf5Lock());
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5PLset_loading_state(0);  // a file must not make us load code
    const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    auto close = absl::MakeCleanup([&] { H5Pclose(access); });
    H5Pset_fapl_core(access, 1 << 16, /*backing_store=*/false);
    H5Pset_file_image(access, image.data(), image.size());
    // HDF5 takes two images of one name for one file, and would go on with the first.
    static uint64_t opened = 0;
    const hid_t id = H5Fopen(absl::StrCat(kWeights, "#", ++opened).c_str(), H5F_ACC_RDONLY, access);
    if (id < 0) return absl::DataLossError(absl::StrCat(file, ": entry ", kWeights, " is not a readable HDF5 file"));
    return std::unique_ptr<WeightsFile>(new WeightsFile(id));
  }
  static absl::StatusOr<std::unique_ptr<WeightsFile>> OpenFile(const std::string& path, const std::string& file) {
    std::lock_guard<std::mutex> lock(Hdf5Lock());
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5PLset_loading_state(0);
    const hid_t id = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
    if (id < 0) return absl::DataLossError(absl::StrCat(file, ": entry ", kWeights, " is not a readable HDF5 file"));
    return std::unique_ptr<WeightsFile>(new WeightsFile(id));
  }
  ~WeightsFile() {
    std::lock_guard<std::mutex> lock(Hdf5Lock());
    H5Fclose(id_);
  }

  // Data sets reachable by hard links: soft and external links are never followed.
  absl::StatusOr<std::map<std::string, ArrayInfo>> List(const std::string& file) {
    std::lock_guard<std::mutex> lock(Hdf5Lock());
    Listing listing{file, {}, absl::OkStatus()};
    const herr_t result = H5Ovisit2(id_, H5_INDEX_NAME, H5_ITER_NATIVE, &WeightsFile::Visit, &listing, H5O_INFO_BASIC);
    if (!listing.status.ok()) return listing.status;
    if (result < 0) return absl::DataLossError(absl::StrCat(file, ": entry ", kWeights, " is corrupt"));
    return std::move(listing.arrays);
  }

  absl::Status Read(const std::string& path, hid_t memory_type, void* out) {
    std::lock_guard<std::mutex> lock(Hdf5Lock());
    const hid_t data = H5Dopen2(id_, path.c_str(), H5P_DEFAULT);
    if (data < 0) return absl::DataLossError("cannot be opened");
    auto close = absl::MakeCleanup([&] { H5Dclose(data); });
    if (H5Dread(data, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
      return absl::DataLossError("cannot be read: the file is corrupt");
    return absl::OkStatus();
  }

 private:
  struct Listing {
    std::string file;
    std::map<std::string, ArrayInfo> arrays;
    absl::Status status;
  };
  explicit WeightsFile(hid_t id) : id_(id) {}

  static herr_t Visit(hid_t root, const char* name, const H5O_info_t* info, void* data) {
    auto& listing = *static_cast<Listing*>(data);
    if (info->type != H5O_TYPE_DATASET) return 0;
    listing.status = Describe(root, name, listing);
    if (listing.arrays.size() > kMaxArrays)
      listing.status = absl::InvalidArgumentError(absl::StrCat(listing.file, ": more than ", kMaxArrays, " arrays"));
    return listing.status.ok() ? 0 : -1;
  }

  static absl::Status Describe(hid_t root, const char* name, Listing& listing) {
    const std::string where = absl::StrCat(listing.file, ": array ", name, " of ", kWeights);
    const hid_t set = H5Dopen2(root, name, H5P_DEFAULT);
    if (set < 0) return absl::DataLossError(absl::StrCat(where, " cannot be opened"));
    auto close_set = absl::MakeCleanup([&] { H5Dclose(set); });
    const hid_t space = H5Dget_space(set), type = H5Dget_type(set), creation = H5Dget_create_plist(set);
    auto close = absl::MakeCleanup([&] { H5Sclose(space), H5Tclose(type), H5Pclose(creation); });
    if (space < 0 || type < 0 || creation < 0) return absl::DataLossError(absl::StrCat(where, " is corrupt"));
    if (H5Pget_external_count(creation) != 0 || H5Pget_layout(creation) == H5D_VIRTUAL) {
      return absl::InvalidArgumentError(absl::StrCat(where, " refers to another file, which is refused"));
    }
    const int rank = H5Sget_simple_extent_ndims(space);
    if (rank < 0 || rank > kMaxRank)
      return absl::InvalidArgumentError(absl::StrCat(where, " has ", rank, " axes; at most ", kMaxRank, " are allowed"));
    hsize_t extent[kMaxRank] = {};
    H5Sget_simple_extent_dims(space, extent, nullptr);
    ArrayInfo info;
    info.bytes_per_element = static_cast<int>(std::min<size_t>(H5Tget_size(type), 1 << 20));
    info.kind = KindOf(type);
    uint64_t bytes = info.bytes_per_element;
    for (int i = 0; i < rank; ++i) {
      if (extent[i] != 0 && bytes > kMaxWeightsBytes / extent[i])
        return absl::InvalidArgumentError(absl::StrCat(where, " states more than ", kMaxWeightsBytes, " bytes"));
      bytes *= extent[i];
      info.shape.push_back(static_cast<int64_t>(extent[i]));
    }
    if (IsBomb(bytes, H5Dget_storage_size(set))) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, " states ", bytes, " bytes, but only ", H5Dget_storage_size(set), " are stored for it"));
    }
    listing.arrays.emplace(name, std::move(info));
    return absl::OkStatus();
  }

  static Kind KindOf(hid_t type) {
    switch (H5Tget_class(type)) {
      case H5T_FLOAT: return Kind::kFloat;
      case H5T_INTEGER: return Kind::kInteger;
      case H5T_ENUM: return Kind::kBool;
      case H5T_STRING: return Kind::kString;
      default: return Kind::kOther;
    }
  }

  const hid_t id_;
};

KerasArchive::KerasArchive(std::string name) : name_(std::move(name)) {}
KerasArchive::~KerasArchive() = default;

absl::StatusOr<std::unique_ptr<KerasArchive>> KerasArchive::Open(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "open model", path);
  int error = 0;
  zip_t* zip = zip_open(path.c_str(), ZIP_RDONLY, &error);
  if (zip == nullptr) {
    zip_error_t reason;
    zip_error_init_with_code(&reason, error);
    auto release = absl::MakeCleanup([&] { zip_error_fini(&reason); });
    return absl::DataLossError(absl::StrCat(path, " is not a .keras file, or is truncated: ", zip_error_strerror(&reason),
                                            ". Save the model again with model.save(\"….keras\")"));
  }
  auto close = absl::MakeCleanup([&] { zip_discard(zip); });
  std::unique_ptr<KerasArchive> archive(new KerasArchive(path));
  RETURN_IF_ERROR(archive->ReadEntries(zip, path));
  return archive;
}

absl::StatusOr<std::unique_ptr<KerasArchive>> KerasArchive::FromBytes(std::string bytes, std::string name) {
  zip_error_t reason;
  zip_error_init(&reason);
  auto release = absl::MakeCleanup([&] { zip_error_fini(&reason); });
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), 0, &reason);
  zip_t* zip = source == nullptr ? nullptr : zip_open_from_source(source, ZIP_RDONLY, &reason);
  if (zip == nullptr) {
    if (source != nullptr) zip_source_free(source);
    return absl::DataLossError(absl::StrCat(name, " is not a .keras file, or is truncated: ", zip_error_strerror(&reason),
                                            ". Save the model again with model.save(\"….keras\")"));
  }
  auto close = absl::MakeCleanup([&] { zip_discard(zip); });
  std::unique_ptr<KerasArchive> archive(new KerasArchive(std::move(name)));
  RETURN_IF_ERROR(archive->ReadEntries(zip, ""));
  return archive;
}

absl::Status KerasArchive::ReadEntries(void* zip_handle, const std::string& path) {
  auto* zip = static_cast<zip_t*>(zip_handle);
  // libzip takes an empty file for an archive without entries.
  if (zip_get_num_entries(zip, 0) <= 0) return absl::DataLossError(absl::StrCat(name_, " is not a .keras file: it is empty"));
  ASSIGN_OR_RETURN(const std::string metadata, ReadEntry(zip, name_, kMetadata, kMaxJsonBytes));
  ASSIGN_OR_RETURN(metadata_, ParseJson(metadata, name_, kMetadata));
  ASSIGN_OR_RETURN(const std::string config, ReadEntry(zip, name_, kConfig, kMaxJsonBytes));
  ASSIGN_OR_RETURN(config_, ParseJson(config, name_, kConfig));
  const auto compile = config_.find("compile_config");
  if (compile != config_.end() && compile->is_object() && !compile->empty()) compile_config_ = *compile;
  // Beside the archive it takes no memory, however large it is. It has no name there for longer than it takes to open it.
  std::string beside = absl::StrCat(path, ".XXXXXX");
  const int extracted = path.empty() ? -1 : mkstemp(beside.data());
  if (extracted >= 0) {
    auto close = absl::MakeCleanup([&] { ::close(extracted), unlink(beside.c_str()); });
    RETURN_IF_ERROR(ExtractEntry(zip, name_, kWeights, kMaxWeightsBytes, extracted, beside));
    ASSIGN_OR_RETURN(weights_, WeightsFile::OpenFile(beside, name_));
  } else {
    ASSIGN_OR_RETURN(std::string weights, ReadEntry(zip, name_, kWeights, kMaxWeightsBytes));
    ASSIGN_OR_RETURN(weights_, WeightsFile::Open(std::move(weights), name_));
  }
  ASSIGN_OR_RETURN(arrays_, weights_->List(name_));
  return absl::OkStatus();
}

template <typename T>
absl::Status KerasArchive::ReadInto(const std::string& path, const std::vector<int64_t>& shape, T* out) const {
  const auto found = arrays_.find(path);
  if (found == arrays_.end()) return absl::InvalidArgumentError(absl::StrCat(name_, ": ", kWeights, " holds no array ", path));
  if (found->second.shape != shape) {
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": array ", path, " has the shape ", ShapeText(found->second.shape), ", not ", ShapeText(shape)));
  }
  if (found->second.kind != Kind::kFloat && found->second.kind != Kind::kInteger) {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": array ", path, " does not hold numbers"));
  }
  const hid_t type = std::is_same_v<T, float> ? H5T_NATIVE_FLOAT : std::is_same_v<T, double> ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64;
  return Annotate(weights_->Read(path, type, out), absl::StrCat(name_, ": array ", path));
}

template <typename T>
absl::StatusOr<std::vector<T>> KerasArchive::Read(const std::string& path, const std::vector<int64_t>& shape) const {
  uint64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  const auto found = arrays_.find(path);
  std::vector<T> values(found != arrays_.end() && found->second.shape == shape ? count : 0);
  RETURN_IF_ERROR(ReadInto(path, shape, values.data()));
  return values;
}

template absl::Status KerasArchive::ReadInto(const std::string&, const std::vector<int64_t>&, float*) const;
template absl::Status KerasArchive::ReadInto(const std::string&, const std::vector<int64_t>&, double*) const;
template absl::Status KerasArchive::ReadInto(const std::string&, const std::vector<int64_t>&, int64_t*) const;
template absl::StatusOr<std::vector<float>> KerasArchive::Read(const std::string&, const std::vector<int64_t>&) const;
template absl::StatusOr<std::vector<double>> KerasArchive::Read(const std::string&, const std::vector<int64_t>&) const;
template absl::StatusOr<std::vector<int64_t>> KerasArchive::Read(const std::string&, const std::vector<int64_t>&) const;

}  // namespace lockstep
