#pragma once
// Whole files, and files that appear whole or not at all. Errors name the path. Thread-safe: no state.

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lockstep {

// NotFound, PermissionDenied, or Unknown (the disk: full, or broken), from errno, with "WHAT PATH: reason".
absl::Status ErrnoStatus(int error, std::string_view what, std::string_view path);

absl::StatusOr<std::string> ReadFile(const std::string& path);
// All of it, however often it takes. `path` is for the error.
absl::Status WriteAll(int fd, std::string_view bytes, std::string_view path);

// Writes to a temporary name beside `path`, flushes to disk, renames, flushes the directory: after OK the file is durable and
// whole; after an error `path` is what it was.
absl::Status WriteFileAtomically(const std::string& path, std::string_view contents);

// The same for contents that someone else wrote to `temporary`, a file in the directory of `path`. After an error it is gone.
absl::Status PublishFile(const std::string& temporary, const std::string& path);

// Makes names created, renamed or removed in the directory durable.
absl::Status FlushDirectory(const std::string& directory);

// Creates the directory and its parents. OK if it exists.
absl::Status MakeDirectories(const std::string& path);

}  // namespace lockstep
