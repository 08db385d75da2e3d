#pragma once
// One thread's way from a sample to floats: read, decode, resize, scale. A thread has buffers of its own for pictures of common size;
// a larger one waits for its share of a pool, in buffers that are given up after it.
//
// For one thread; the reader and the pool are shared.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "dataset/byte_pool.h"
#include "dataset/decode.h"
#include "dataset/file_reader.h"
#include "dataset/image.h"
#include "dataset/index.h"
#include "dataset/resize.h"

namespace lockstep::dataset {

struct LoadOptions {
  ImageOptions image;
  std::string folder;
  int tries = 3;  // of reading a file
  absl::Duration retry_pause = absl::Milliseconds(50);
};

// What became of one picture.
struct LoadedPicture {
  // Not OK: it could not be read or held. DataLoss: its file is not what the index says. ResourceExhausted: larger than the pool,
  // or the system has no memory for it.
  // Unavailable: reading failed, and again. Cancelled: the pool was closed. All but the last name the file.
  absl::Status status;
  std::string bad;         // why it cannot be decoded; empty if it was
  uint64_t hash = 0;       // XXH3-64 of the file
  int64_t pool_bytes = 0;  // that it took of the pool, for a while
};

class PictureLoader {
 public:
  // What every loader holds, for pictures of common size.
  static int64_t OwnBytes(const ImageOptions& image);

  // The references must outlive the loader. `stopped` ends waiting between tries.
  PictureLoader(const LoadOptions& options, const FileReader& reader, BytePool& pool, const absl::Notification& stopped);

  // Fills `out`, height × width × channels floats; with zeros if the picture is bad, not at all if the status is not OK.
  LoadedPicture Load(const SampleInfo& sample, float* out);

  // Of its own buffers and decoder, what has been in use so far; at most OwnBytes.
  int64_t touched_bytes() const { return touched_file_ + touched_decode_; }

 private:
  struct Buffers {
    std::string file;
    Pixels pixels;
  };
  LoadedPicture LoadOwnOrLarge(const SampleInfo& sample, float* out);
  LoadedPicture LoadLarge(const SampleInfo& sample, int64_t bytes, float* out);
  // ResourceExhausted, as `status`, if decoding takes more than `decode_bytes`: then nothing is decoded.
  LoadedPicture LoadWithin(const SampleInfo& sample, int64_t decode_bytes, Buffers& buffers, float* out);
  absl::Status Read(const SampleInfo& sample, std::string& file) const;
  std::string PathOf(const SampleInfo& sample) const;

  const LoadOptions options_;
  const FileReader& reader_;
  BytePool& pool_;
  const absl::Notification& stopped_;
  Resizer resizer_;
  Buffers own_;
  int64_t touched_file_ = 0, touched_decode_ = 0;
};

}  // namespace lockstep::dataset
