#pragma once
// The two decoders behind Decode. Thread-safe: no state.

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "dataset/decode.h"

namespace lockstep::dataset {

absl::Status DecodeJpeg(std::string_view file, const DecodeOptions& options, Pixels& pixels);
absl::Status DecodePng(std::string_view file, const DecodeOptions& options, Pixels& pixels);

// The refusals that both share.
absl::Status CheckSize(int64_t pixels, int64_t bytes, const DecodeOptions& options);

// Makes room for exactly this: a vector that grows by itself takes more, which nobody counted.
void Reserve(Pixels& pixels, size_t bytes);

}  // namespace lockstep::dataset
