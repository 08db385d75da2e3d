#include "trainer/checkpoint_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

using Json = nlohmann::ordered_json;

constexpr char kMetadata[] = "__metadata__";
constexpr char kChecksum[] = "xxh3_128";
// In the checksum's place while the checksum is computed.
constexpr char kNoChecksum[] = "00000000000000000000000000000000";
constexpr size_t kChecksumDigits = 32;
constexpr size_t kLengthBytes = 8;
constexpr uint64_t kMostHeaderBytes = 100'000'000;  // as the format has it
constexpr size_t kChunkBytes = 1 << 20;

std::string LengthOf(uint64_t bytes) {
  std::string text(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) text[i] = static_cast<char>(bytes >> (8 * i));
  return text;
}

std::string MakeHeader(const std::map<std::string, std::string>& metadata, const std::vector<CheckpointTensor>& tensors) {
  Json header;
  for (const auto& [key, value] : metadata) header[kMetadata][key] = value;
  header[kMetadata][kChecksum] = kNoChecksum;
  uint64_t offset = 0;
  for (const CheckpointTensor& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, offset + tensor.bytes}}};
    offset += tensor.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + kLengthBytes - 1) / kLengthBytes * kLengthBytes, ' ');
  return LengthOf(text.size()) + text;
}

// Where the checksum's digits are in a header, whatever they are.
size_t FindChecksum(const std::string& header) {
  const std::string key = absl::StrCat("\"", kChecksum, "\":\"");
  const size_t at = header.find(key);
  return at == std::string::npos || at + key.size() + kChecksumDigits > header.size() ? std::string::npos : at + key.size();
}

std::string Digits(const XXH128_hash_t& digest) { return absl::StrFormat("%016x%016x", digest.high64, digest.low64); }

}  // namespace

struct CheckpointFileWriter::Hash {
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state{XXH3_createState(), &XXH3_freeState};
  Hash() { XXH3_128bits_reset(state.get()); }
};

CheckpointFileWriter::CheckpointFileWriter(std::string path, FileDescriptor file, uint64_t bytes, size_t checksum_at)
    : path_(std::move(path)), file_(std::move(file)), missing_(bytes), checksum_at_(checksum_at), hash_(std::make_unique<Hash>()) {}

CheckpointFileWriter::~CheckpointFileWriter() = default;

absl::StatusOr<std::unique_ptr<CheckpointFileWriter>> CheckpointFileWriter::Create(const std::string& path,
                                                                                   const std::map<std::string, std::string>& metadata,
                                                                                   const std::vector<CheckpointTensor>& tensors) {
  FileDescriptor file(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return ErrnoStatus(errno, "cannot create", path);
  const std::string header = MakeHeader(metadata, tensors);
  uint64_t bytes = 0;
  for (const CheckpointTensor& tensor : tensors) bytes += tensor.bytes;
  std::unique_ptr<CheckpointFileWriter> writer(new CheckpointFileWriter(path, std::move(file), bytes, FindChecksum(header)));
  RETURN_IF_ERROR(writer->Write(header.data(), header.size()));
  return writer;
}

absl::Status CheckpointFileWriter::Write(const void* data, size_t bytes) {
  XXH3_128bits_update(hash_->state.get(), data, bytes);
  return WriteAll(file_.get(), {static_cast<const char*>(data), bytes}, path_);
}

absl::Status CheckpointFileWriter::Append(absl::Span<const std::byte> bytes) {
  if (bytes.size() > missing_) return absl::InvalidArgumentError(absl::StrCat(path_, ": more bytes than its tensors have"));
  missing_ -= bytes.size();
  return Write(bytes.data(), bytes.size());
}

absl::Status CheckpointFileWriter::Finish() {
  if (missing_ > 0) return absl::InvalidArgumentError(absl::StrCat(path_, ": ", missing_, " bytes of its tensors are missing"));
  const std::string digits = Digits(XXH3_128bits_digest(hash_->state.get()));
  const ssize_t written = pwrite(file_.get(), digits.data(), digits.size(), static_cast<off_t>(checksum_at_));
  if (written != static_cast<ssize_t>(digits.size())) return ErrnoStatus(errno, "cannot write", path_);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CheckpointFileReader>> CheckpointFileReader::Open(const std::string& path) {
  FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, "cannot open", path);
  std::unique_ptr<CheckpointFileReader> reader(new CheckpointFileReader(path, std::move(file)));
  RETURN_IF_ERROR(reader->ReadHeader());
  return reader;
}

absl::Status CheckpointFileReader::Damaged(const std::string& how) const {
  return absl::DataLossError(absl::StrCat(path_.substr(path_.rfind('/') + 1), ": ", how));
}

absl::Status CheckpointFileReader::ReadHeader() {
  struct stat status;
  if (fstat(file_.get(), &status) != 0) return ErrnoStatus(errno, "cannot look at", path_);
  file_bytes_ = static_cast<uint64_t>(status.st_size);
  unsigned char length[kLengthBytes] = {};
  if (pread(file_.get(), length, sizeof(length), 0) != sizeof(length)) return Damaged("it is shorter than a header");
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) header_bytes |= uint64_t{length[i]} << (8 * i);
  if (header_bytes > kMostHeaderBytes || header_bytes + kLengthBytes > file_bytes_) return Damaged("its header is longer than the file");
  header_.resize(kLengthBytes + header_bytes);
  if (pread(file_.get(), header_.data(), header_.size(), 0) != static_cast<ssize_t>(header_.size())) {
    return ErrnoStatus(errno, "cannot read", path_);
  }
  const Json header = Json::parse(header_.substr(kLengthBytes), nullptr, /*allow_exceptions=*/false);
  const size_t checksum_at = FindChecksum(header_);
  if (!header.is_object() || !header.contains(kMetadata) || checksum_at == std::string::npos) return Damaged("its header cannot be read");
  RETURN_IF_ERROR(Verify(header_.substr(checksum_at, kChecksumDigits), checksum_at));
  // Whole, and so what the writer wrote.
  for (const auto& [name, entry] : header.items()) {
    if (name == kMetadata) {
      for (const auto& [key, value] : entry.items()) metadata_[key] = value.get<std::string>();
      continue;
    }
    const auto begin = entry.at("data_offsets").at(0).get<uint64_t>(), end = entry.at("data_offsets").at(1).get<uint64_t>();
    tensors_[name] = {{name, entry.at("dtype").get<std::string>(), entry.at("shape").get<std::vector<int64_t>>(), end - begin},
                      header_.size() + begin};
  }
  return absl::OkStatus();
}

absl::Status CheckpointFileReader::Verify(const std::string& checksum, size_t checksum_at) const {
  std::string header = header_;
  header.replace(checksum_at, kChecksumDigits, kNoChecksum);
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> hash(XXH3_createState(), &XXH3_freeState);
  XXH3_128bits_reset(hash.get());
  XXH3_128bits_update(hash.get(), header.data(), header.size());
  std::vector<char> chunk(kChunkBytes);
  for (uint64_t at = header_.size(); at < file_bytes_;) {
    const size_t wanted = std::min<uint64_t>(chunk.size(), file_bytes_ - at);
    const ssize_t count = pread(file_.get(), chunk.data(), wanted, static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot read", path_);
    if (count == 0) return Damaged("it became shorter while it was read");
    XXH3_128bits_update(hash.get(), chunk.data(), static_cast<size_t>(count));
    at += static_cast<uint64_t>(count);
  }
  const std::string found = Digits(XXH3_128bits_digest(hash.get()));
  if (found == checksum) return absl::OkStatus();
  return Damaged(absl::StrCat("its checksum is ", found, ", and it was written with ", checksum));
}

const CheckpointTensor* CheckpointFileReader::Find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second.tensor;
}

absl::Status CheckpointFileReader::Read(const std::string& name, absl::Span<std::byte> to) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return Damaged(absl::StrCat("it has no ", name));
  if (found->second.tensor.bytes != to.size()) {
    return Damaged(absl::StrCat(name, " has ", found->second.tensor.bytes, " bytes, and ", to.size(), " are wanted"));
  }
  uint64_t at = found->second.offset;
  while (!to.empty()) {
    const ssize_t count = pread(file_.get(), to.data(), to.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return ErrnoStatus(errno, "cannot read", path_);
    if (count == 0) return Damaged("it became shorter while it was read");
    to.remove_prefix(static_cast<size_t>(count));
    at += static_cast<uint64_t>(count);
  }
  return absl::OkStatus();
}

}  // namespace lockstep
