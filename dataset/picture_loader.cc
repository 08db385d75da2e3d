#include "dataset/picture_loader.h"

#include <xxhash.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace lockstep::dataset {
namespace {

constexpr int64_t kOwnFileBytes = 1 << 20;
constexpr int64_t kOwnDecoderBytes = 1 << 20;

int64_t Floats(const ImageOptions& image) { return static_cast<int64_t>(image.height) * image.width * image.channels; }

// A JPEG that is decoded at the smallest scale that is large enough has up to four times the target's pixels.
int64_t OwnPixelBytes(const ImageOptions& image) { return 4 * Floats(image); }

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

int64_t PictureLoader::OwnBytes(const ImageOptions& image) { return kOwnFileBytes + kOwnDecoderBytes + OwnPixelBytes(image); }

PictureLoader::PictureLoader(const LoadOptions& options, const FileReader& reader, BytePool& pool, const absl::Notification& stopped)
    : options_(options), reader_(reader), pool_(pool), stopped_(stopped), resizer_(options.image) {
  own_.file.reserve(static_cast<size_t>(kOwnFileBytes));
  own_.pixels.data.reserve(static_cast<size_t>(OwnPixelBytes(options.image)));
}

LoadedPicture PictureLoader::Load(const SampleInfo& sample, float* out) {
  if (sample.bytes > kOwnFileBytes) return LoadLarge(sample, sample.bytes + OwnPixelBytes(options_.image) + kOwnDecoderBytes, out);
  LoadedPicture picture = LoadWithin(sample, OwnPixelBytes(options_.image) + kOwnDecoderBytes, own_, out);
  if (static_cast<int64_t>(own_.pixels.data.capacity()) > OwnPixelBytes(options_.image)) own_.pixels.data = std::vector<uint8_t>();
  if (picture.status.code() != absl::StatusCode::kResourceExhausted) return picture;
  return LoadLarge(sample, sample.bytes + own_.pixels.decode_bytes, out);
}

LoadedPicture PictureLoader::LoadLarge(const SampleInfo& sample, int64_t bytes, float* out) {
  for (;;) {
    if (bytes > pool_.capacity()) {
      return {absl::ResourceExhaustedError(absl::StrCat(options_.folder, "/", View(sample.path), " takes ", bytes,
                                                        " bytes to read and decode; the input pipeline has ", pool_.capacity(),
                                                        " for large pictures: raise data.memory")),
              "", 0};
    }
    if (!pool_.Acquire(bytes)) return {absl::CancelledError("the input pipeline was stopped"), "", 0};
    int64_t needed = 0;
    LoadedPicture picture;
    {
      Buffers buffers;
      picture = LoadWithin(sample, bytes - sample.bytes, buffers, out);
      needed = sample.bytes + buffers.pixels.decode_bytes;
    }
    pool_.Release(bytes);
    // Only after the header is read is it known what a picture takes; then it is read once more.
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

absl::Status PictureLoader::Read(const SampleInfo& sample, std::string& file) const {
  const std::string path = absl::StrCat(options_.folder, "/", View(sample.path));
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
