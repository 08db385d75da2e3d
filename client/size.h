#pragma once
// Sizes in bytes, as people write and read them. Thread-safe: no state.

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace lockstep {

// "65536", "512MiB", "1.5 GB", "8G". KiB, MiB, GiB, TiB (and K, M, G, T) are powers of 1024; kB, MB, GB, TB are powers of 1000;
// upper and lower case are one. InvalidArgument for anything else, and for what is over 2^63.
absl::StatusOr<uint64_t> ParseSize(std::string_view text);

// At most four digits and a binary unit: "0 B", "512 MiB", "1.50 GiB".
std::string FormatSize(uint64_t bytes);

}  // namespace lockstep
