#include <csetjmp>
#include <cstdio>
// clang-format off: jpeglib.h needs what <cstdio> declares
#include <jerror.h>
#include <jpeglib.h>
// clang-format on

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "dataset/decode_format.h"

namespace lockstep::dataset {
namespace {

constexpr int64_t kDecoderBytes = 128 << 10;  // tables and small things
constexpr int64_t kRowsHeld = 48;             // rows of samples, between entropy decoding and output

// libjpeg leaves by longjmp; nothing with a destructor may live in the frames between.
struct ErrorHandler {
  jpeg_error_mgr manager;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

void OnError(j_common_ptr info) {
  auto* handler = reinterpret_cast<ErrorHandler*>(info->err);
  info->err->format_message(info, handler->message);
  std::longjmp(handler->escape, 1);
}

// Warnings (level −1) are about data that libjpeg had to guess at, but for these.
void OnMessage(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_BOGUS_ICC:
    case JWRN_TOO_MUCH_DATA: return;
    default: OnError(info);
  }
}

// The smallest scale of 1/8, 2/8, 4/8, 8/8 that leaves both directions as large as they must be, in eighths.
unsigned Eighths(const jpeg_decompress_struct& info, const DecodeOptions& options) {
  if (options.least_height <= 0 || options.least_width <= 0) return 8;
  const auto enough = [](JDIMENSION size, unsigned eighths, int least) { return (static_cast<int64_t>(size) * eighths + 7) / 8 >= least; };
  unsigned eighths = 1;
  while (eighths < 8 &&
         !(enough(info.image_height, eighths, options.least_height) && enough(info.image_width, eighths, options.least_width))) {
    eighths *= 2;
  }
  return eighths;
}

// REQUIRES: the output's dimensions are known.
int64_t BytesToDecode(jpeg_decompress_struct& info, int channels) {
  int64_t bytes = static_cast<int64_t>(info.output_width) * info.output_height * channels;
  bytes += kDecoderBytes + static_cast<int64_t>(info.image_width) * info.num_components * kRowsHeld;
  if (jpeg_has_multiple_scans(&info) == 0) return bytes;
  // Progressive: all coefficients of all components are held.
  for (int i = 0; i < info.num_components; ++i) {
    const jpeg_component_info& component = info.comp_info[i];
    bytes += static_cast<int64_t>(component.width_in_blocks + 8) * (component.height_in_blocks + 8) * static_cast<int64_t>(sizeof(JBLOCK));
  }
  return bytes;
}

enum class Step { kDone, kDamaged, kCmyk, kRefused };

// Only plain values live in these two, so that a longjmp passes nothing over. After kRefused `size` says what CheckSize must.
struct Size {
  int64_t pixels = 0;
  int64_t bytes = 0;
};
Step Start(jpeg_decompress_struct& info, ErrorHandler& handler, std::string_view file, const DecodeOptions& options, Size& size) {
  if (setjmp(handler.escape) != 0) return Step::kDamaged;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&info, TRUE);
  if (info.num_components == 4 || info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK) return Step::kCmyk;
  info.out_color_space = options.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  info.scale_num = Eighths(info, options);
  info.scale_denom = 8;
  jpeg_calc_output_dimensions(&info);
  size = {static_cast<int64_t>(info.image_width) * info.image_height, BytesToDecode(info, options.channels)};
  if (size.pixels > kMostPixels || size.bytes > options.most_bytes) return Step::kRefused;
  jpeg_start_decompress(&info);
  return Step::kDone;
}

Step ReadRows(jpeg_decompress_struct& info, ErrorHandler& handler, uint8_t* data, size_t stride) {
  if (setjmp(handler.escape) != 0) return Step::kDamaged;
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = data + stride * info.output_scanline;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return Step::kDone;
}

}  // namespace

absl::Status DecodeJpeg(std::string_view file, const DecodeOptions& options, Pixels& pixels) {
  ErrorHandler handler{};
  jpeg_decompress_struct info{};
  info.err = jpeg_std_error(&handler.manager);
  handler.manager.error_exit = &OnError;
  handler.manager.emit_message = &OnMessage;
  const auto destroy = absl::MakeCleanup([&info] { jpeg_destroy_decompress(&info); });
  Size size;
  Step step = Start(info, handler, file, options, size);
  pixels.decode_bytes = size.bytes;
  if (step == Step::kDone) {
    pixels.height = static_cast<int>(info.output_height);
    pixels.width = static_cast<int>(info.output_width);
    pixels.channels = options.channels;
    const size_t stride = static_cast<size_t>(info.output_width) * static_cast<size_t>(options.channels);
    Reserve(pixels, stride * info.output_height);
    pixels.data.resize(stride * info.output_height);
    step = ReadRows(info, handler, pixels.data.data(), stride);
  }
  switch (step) {
    case Step::kDone: return absl::OkStatus();
    case Step::kCmyk: return absl::InvalidArgumentError("a CMYK JPEG; only grey and RGB colour can be used");
    case Step::kRefused: return CheckSize(size.pixels, size.bytes, options);
    case Step::kDamaged: break;
  }
  return absl::InvalidArgumentError(absl::StrCat("damaged JPEG: ", handler.message));
}

}  // namespace lockstep::dataset
