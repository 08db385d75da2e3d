#include "model/training/archive_writer.h"

#include <fcntl.h>
#include <unistd.h>
#include <zip.h>

#include <cerrno>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/training/weights_rewriter.h"

namespace lockstep {
namespace {

constexpr char kConfig[] = "config.json";
constexpr char kWeights[] = "model.weights.h5";
constexpr size_t kChunkBytes = 1 << 20;
constexpr zip_uint16_t kFirstDosDate = (1 << 5) | 1;  // 1980-01-01: the same state makes the same file

struct Discard {
  void operator()(zip_t* zip) const { zip_discard(zip); }
};
using ZipArchive = std::unique_ptr<zip_t, Discard>;

absl::Status ZipFailure(zip_error_t* error, absl::string_view what, const std::string& path) {
  if (zip_error_system_type(error) == ZIP_ET_SYS && zip_error_code_system(error) != 0) {
    return ErrnoStatus(zip_error_code_system(error), std::string(what), path);
  }
  return absl::DataLossError(absl::StrCat(what, " ", path, ": ", zip_error_strerror(error)));
}

absl::StatusOr<ZipArchive> OpenZip(const std::string& path, int flags, absl::string_view what) {
  int code = 0;
  ZipArchive zip(zip_open(path.c_str(), flags, &code));
  if (zip != nullptr) return zip;
  const int system = errno;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  const auto release = absl::MakeCleanup([&error] { zip_error_fini(&error); });
  if (code == ZIP_ER_NOENT) return ErrnoStatus(ENOENT, std::string(what), path);
  if (zip_error_system_type(&error) == ZIP_ET_SYS && system != 0) return ErrnoStatus(system, std::string(what), path);
  return ZipFailure(&error, what, path);
}

// Calls `take` with the entry's bytes, a chunk at a time.
template <typename Take>
absl::Status ReadEntry(zip_t* zip, const char* entry, const std::string& path, Take take) {
  zip_file_t* file = zip_fopen(zip, entry, 0);
  if (file == nullptr) return ZipFailure(zip_get_error(zip), absl::StrCat("cannot read ", entry, " of"), path);
  const auto close = absl::MakeCleanup([file] { zip_fclose(file); });
  std::string chunk(kChunkBytes, '\0');
  for (;;) {
    const zip_int64_t count = zip_fread(file, chunk.data(), chunk.size());
    if (count < 0) return ZipFailure(zip_file_get_error(file), absl::StrCat("cannot read ", entry, " of"), path);
    if (count == 0) return absl::OkStatus();
    RETURN_IF_ERROR(take(std::string_view(chunk.data(), static_cast<size_t>(count))));
  }
}

absl::Status ExtractWeights(zip_t* zip, const std::string& source, const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", path);
  const auto close_file = absl::MakeCleanup([fd] { close(fd); });
  return ReadEntry(zip, kWeights, source, [&](std::string_view bytes) { return WriteAll(fd, bytes, path); });
}

// config.json with another compile_config, its other keys where they were.
absl::StatusOr<std::string> ChangedConfig(zip_t* zip, const std::string& source, const Json& compile_config) {
  std::string text;
  RETURN_IF_ERROR(ReadEntry(zip, kConfig, source, [&](std::string_view bytes) {
    text.append(bytes);
    return absl::OkStatus();
  }));
  auto config = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return absl::DataLossError(absl::StrCat(source, ": ", kConfig, " is not a JSON object"));
  config["compile_config"] = compile_config;
  return config.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::ordered_json::error_handler_t::replace);
}

absl::Status AddEntry(zip_t* to, const char* name, zip_source_t* content, bool store, const std::string& target) {
  const zip_int64_t index = content == nullptr ? -1 : zip_file_add(to, name, content, ZIP_FL_ENC_GUESS);
  if (index < 0) {
    zip_source_free(content);
    return ZipFailure(zip_get_error(to), absl::StrCat("cannot add ", name, " to"), target);
  }
  if (!store) return absl::OkStatus();
  const auto entry = static_cast<zip_uint64_t>(index);
  zip_set_file_compression(to, entry, ZIP_CM_STORE, 0);
  zip_file_set_dostime(to, entry, 0, kFirstDosDate, 0);
  return absl::OkStatus();
}

// Every entry of the source in its order, those that changed from `config` (if not empty) and the file `weights`.
absl::Status Assemble(zip_t* from, ZipArchive& to, const std::string& config, const std::string& weights, const std::string& target) {
  const zip_int64_t entries = zip_get_num_entries(from, 0);
  for (zip_int64_t i = 0; i < entries; ++i) {
    const auto index = static_cast<zip_uint64_t>(i);
    const char* raw_name = zip_get_name(from, index, 0);
    if (raw_name == nullptr) return ZipFailure(zip_get_error(from), "cannot read the entries for", target);
    const std::string name = raw_name;
    if (name == kWeights) {
      RETURN_IF_ERROR(AddEntry(to.get(), kWeights, zip_source_file(to.get(), weights.c_str(), 0, 0), true, target));
    } else if (name == kConfig && !config.empty()) {
      RETURN_IF_ERROR(AddEntry(to.get(), kConfig, zip_source_buffer(to.get(), config.data(), config.size(), 0), true, target));
    } else {
      RETURN_IF_ERROR(AddEntry(to.get(), name.c_str(), zip_source_zip(to.get(), from, index, 0, 0, 0), false, target));
    }
  }
  if (zip_close(to.get()) != 0) return ZipFailure(zip_get_error(to.get()), "cannot write", target);
  static_cast<void>(to.release());
  return absl::OkStatus();
}

}  // namespace

absl::Status WriteTrainedArchive(const std::string& source, const std::string& target, const TrainedWeights& weights) {
  const std::string weights_file = absl::StrCat(target, ".weights.", getpid()), archive = absl::StrCat(target, ".tmp.", getpid());
  const auto remove = absl::MakeCleanup([&] {
    unlink(weights_file.c_str());
    unlink(archive.c_str());
  });
  ASSIGN_OR_RETURN(ZipArchive from, OpenZip(source, ZIP_RDONLY, "cannot open"));
  RETURN_IF_ERROR(ExtractWeights(from.get(), source, weights_file));
  RETURN_IF_ERROR(RewriteWeights(weights_file, weights));
  std::string config;
  if (!weights.compile_config.is_null()) {
    ASSIGN_OR_RETURN(config, ChangedConfig(from.get(), source, weights.compile_config));
  }
  ASSIGN_OR_RETURN(ZipArchive to, OpenZip(archive, ZIP_CREATE | ZIP_TRUNCATE, "cannot create"));
  RETURN_IF_ERROR(Assemble(from.get(), to, config, weights_file, target));
  return PublishFile(archive, target);
}

}  // namespace lockstep
