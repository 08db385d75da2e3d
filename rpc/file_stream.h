#pragma once
// A file as a stream of Chunks (proto/lockstep.proto): pieces of at most 1 MiB, the last one with size and checksum of the
// whole. Thread-safe: no state.

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/lockstep.pb.h"

namespace lockstep {

struct FileDigest {
  uint64_t bytes = 0;
  std::string xxh3_128;  // 32 hexadecimal digits
};

absl::StatusOr<FileDigest> DigestFile(const std::string& path);

// `write` is false once the stream is broken: then Unavailable, and the call's own status says more.
absl::Status SendFile(const std::string& path, absl::FunctionRef<bool(const v1::Chunk&)> write);

// Reads up to the last chunk into a temporary file beside `path`, flushes, checks size and checksum, renames, flushes the
// directory: after OK the file is whole and durable; after an error `path` is what it was. `read` is false once the stream
// ended: before the last chunk that is Unavailable. DataLoss: what came is not what was sent. InvalidArgument: the file
// would pass `most_bytes`. Otherwise it is the disk (ErrnoStatus).
absl::StatusOr<FileDigest> ReceiveFile(const std::string& path, absl::FunctionRef<bool(v1::Chunk*)> read, uint64_t most_bytes = UINT64_MAX);

}  // namespace lockstep
