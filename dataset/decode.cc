#include "dataset/decode.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "dataset/decode_format.h"

namespace lockstep::dataset {

absl::Status Decode(std::string_view file, const DecodeOptions& options, Pixels& pixels) {
  pixels.decode_bytes = 0;
  if (file.empty()) return absl::InvalidArgumentError("the file is empty");
  if (file.substr(0, 3) == "\xFF\xD8\xFF") return DecodeJpeg(file, options, pixels);
  if (file.substr(0, 8) == "\x89PNG\r\n\x1A\n") return DecodePng(file, options, pixels);
  return absl::InvalidArgumentError(
      absl::StrCat("neither a JPEG nor a PNG: it begins with \"", absl::CHexEscape(std::string(file.substr(0, 8))), "\""));
}

absl::Status CheckSize(int64_t pixels, int64_t bytes, const DecodeOptions& options) {
  if (pixels > kMostPixels) return absl::InvalidArgumentError(absl::StrCat("it has ", pixels, " pixels, more than ", kMostPixels));
  if (bytes <= options.most_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat("decoding it takes ", bytes, " bytes; ", options.most_bytes, " are allowed"));
}

void Reserve(Pixels& pixels, size_t bytes) {
  if (bytes <= pixels.data.capacity()) return;
  pixels.data = std::vector<uint8_t>();
  pixels.data.reserve(bytes);
}

}  // namespace lockstep::dataset
