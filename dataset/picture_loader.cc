#include "dataset/picture_loader.h"

#include <xxhash.h>

#include <algorithm>
#include <new>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace lockstep::dataset {
namespace {

constexpr int64_t kOwnFileBytes = 1 << 20;
constexpr int64_t kOwnDecoderBytes = 1 << 20;

int64_t Floats(const ImageOptions& image) { return static_cast<int64_t>(image.height) * image.width * image.channels; }

// A JPEG that is decoded at the smallest scale that is large enough has up to four times the target's pixels.
int64_t OwnPixelBytes(const ImageOptions& image) { return 4 * Floats(image); }

}  // namespace

int64_t PictureLoader::OwnBytes(const ImageOptions& image) { return kOwnFileBytes + kOwnDecoderBytes + OwnPixelBytes(image); }

PictureLoader::PictureLoader(const LoadOptions& options, const FileReader& reader, BytePool& pool, const absl::Notification& stopped)
    : options_(options), reader_(reader), pool_(pool), stopped_(stopped), resizer_(options.image) {
  own_.file.reserve(static_cast<size_t>(kOwnFileBytes));
  own_.pixels.data.reserve(static_cast<size_t>(OwnPixelBytes(options.image)));
}

LoadedPicture PictureLoader::Load(const SampleInfo& sample, float* out) {
  try {
    return LoadOwnOrLarge(sample, out);
  } catch (const std::bad_alloc&) {
    return {absl::ResourceExhaustedError(absl::StrCat("the system has no memory to read and decode ", PathOf(sample))), "", 0};
  }
}

LoadedPicture PictureLoader::LoadOwnOrLarge(const SampleInfo& sample, float* out) {
  const int64_t decode_bytes = OwnPixelBytes(options_.image) + kOwnDecoderBytes;
  if (sample.bytes > kOwnFileBytes) return LoadLarge(sample, sample.bytes + decode_bytes, out);
  LoadedPicture picture = LoadWithin(sample, decode_bytes, own_, out);
  const bool larger = picture.status.code() == absl::StatusCode::kResourceExhausted;
  touched_file_ = std::max(touched_file_, sample.bytes);
  if (!larger) touched_decode_ = std::max(touched_decode_, own_.pixels.decode_bytes);
  if (static_cast<int64_t>(own_.pixels.data.capacity()) > OwnPixelBytes(options_.image)) own_.pixels.data = std::vector<uint8_t>();
  return larger ? LoadLarge(sample, sample.bytes + own_.pixels.decode_bytes, out) : picture;
}

LoadedPicture PictureLoader::LoadLarge(const SampleInfo& sample, int64_t bytes, float* out) {
  for (;;) {
    if (bytes > pool_.largest()) {
      return {
          absl::ResourceExhaustedError(absl::StrCat(PathOf(sample), " takes ", bytes, " bytes to read and decode; the input pipeline has ",
                                                    pool_.largest(), " for large pictures: raise data.memory")),
          "", 0};
    }
    if (!pool_.Acquire(bytes)) return {absl::CancelledError("the input pipeline was stopped"), "", 0};
    const auto release = absl::MakeCleanup([this, bytes] { pool_.Release(bytes); });
    Buffers buffers;
    LoadedPicture picture = LoadWithin(sample, bytes - sample.bytes, buffers, out);
    picture.pool_bytes = bytes;
    // Only after the header is read is it known what a picture takes; then it is read once more.
    const int64_t needed = sample.bytes + buffers.pixels.decode_bytes;
    if (picture.status.code() != absl::StatusCode::kResourceExhausted || needed <= bytes) return picture;
    bytes = needed;
  }
}

LoadedPicture PictureLoader::LoadWithin(const SampleInfo& sample, int64_t decode_bytes, Buffers& buffers, float* out) {
  LoadedPicture picture;
  picture.status = Read(sample, buffers.file);
  if (!picture.status.ok()) return picture;
  picture.hash = XXH3_64bits(buffers.file.data(), buffers.file.size());
  DecodeOptions decode;
  decode.channels = options_.image.channels;
  decode.most_bytes = decode_bytes;
  if (!options_.image.full_decode) decode.least_height = options_.image.height, decode.least_width = options_.image.width;
  const absl::Status decoded = Decode(buffers.file, decode, buffers.pixels);
  if (decoded.ok()) {
    resizer_.Run(buffers.pixels, out);
  } else if (decoded.code() == absl::StatusCode::kInvalidArgument) {
    picture.bad = std::string(decoded.message());
    std::fill_n(out, Floats(options_.image), 0.0f);
  } else {
    picture.status = decoded;
  }
  return picture;
}

std::string PictureLoader::PathOf(const SampleInfo& sample) const { return absl::StrCat(options_.folder, "/", sample.path); }

absl::Status PictureLoader::Read(const SampleInfo& sample, std::string& file) const {
  const std::string path = PathOf(sample);
  for (int attempt = 1;; ++attempt) {
    const absl::Status status = reader_.Read(path, sample.bytes, file);
    if (status.ok() || status.code() == absl::StatusCode::kDataLoss) return status;
    if (attempt == options_.tries) return absl::UnavailableError(absl::StrCat(status.message(), " (tried ", attempt, " times)"));
    if (stopped_.WaitForNotificationWithTimeout(options_.retry_pause * attempt)) {
      return absl::CancelledError("the input pipeline was stopped");
    }
  }
}

}  // namespace lockstep::dataset
