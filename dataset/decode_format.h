#pragma once
// The two decoders behind Decode. Thread-safe: no state.

#include <string_view>

#include "absl/status/status.h"
#include "dataset/decode.h"

namespace lockstep::dataset {

absl::Status DecodeJpeg(std::string_view file, const DecodeOptions& options, Pixels& pixels);
absl::Status DecodePng(std::string_view file, const DecodeOptions& options, Pixels& pixels);

}  // namespace lockstep::dataset
