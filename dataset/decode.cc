#include "dataset/decode.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "dataset/decode_format.h"

namespace lockstep::dataset {

absl::Status Decode(std::string_view file, const DecodeOptions& options, Pixels& pixels) {
  if (file.empty()) return absl::InvalidArgumentError("the file is empty");
  if (file.substr(0, 3) == "\xFF\xD8\xFF") return DecodeJpeg(file, options, pixels);
  if (file.substr(0, 8) == "\x89PNG\r\n\x1A\n") return DecodePng(file, options, pixels);
  return absl::InvalidArgumentError(
      absl::StrCat("neither a JPEG nor a PNG: it begins with \"", absl::CHexEscape(std::string(file.substr(0, 8))), "\""));
}

}  // namespace lockstep::dataset
