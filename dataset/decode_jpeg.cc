#include <csetjmp>
#include <cstdio>
// clang-format off: jpeglib.h needs what <cstdio> declares
#include <jpeglib.h>
// clang-format on

#include "absl/strings/str_cat.h"
#include "dataset/decode_format.h"

namespace lockstep::dataset {
namespace {

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

// Warnings are about damaged data (level −1): a picture that libjpeg had to guess at is no sample.
void OnMessage(j_common_ptr info, int level) {
  if (level < 0) OnError(info);
}

// Smallest n for which n/8 of `size` is at least `least`.
int EighthsFor(int size, int least) {
  int eighths = 1;
  while (eighths < 8 && (static_cast<int64_t>(size) * eighths + 7) / 8 < least) ++eighths;
  return eighths;
}

// False with handler.message. Only plain values live in here.
bool Run(jpeg_decompress_struct& info, ErrorHandler& handler, std::string_view file, const DecodeOptions& options, Pixels& pixels,
         bool& cmyk, int64_t& too_large) {
  if (setjmp(handler.escape) != 0) return false;
  jpeg_create_decompress(&info);
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(file.data()), file.size());
  jpeg_read_header(&info, TRUE);
  cmyk = info.num_components == 4 || info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  const int64_t size = static_cast<int64_t>(info.image_width) * info.image_height;
  if (size > kMostPixels) too_large = size;
  if (cmyk || too_large > 0) return false;
  info.out_color_space = options.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  if (options.least_height > 0 && options.least_width > 0) {
    const int rows = EighthsFor(static_cast<int>(info.image_height), options.least_height);
    const int columns = EighthsFor(static_cast<int>(info.image_width), options.least_width);
    info.scale_num = static_cast<unsigned>(rows > columns ? rows : columns);
    info.scale_denom = 8;
  }
  jpeg_start_decompress(&info);
  pixels.height = static_cast<int>(info.output_height);
  pixels.width = static_cast<int>(info.output_width);
  pixels.channels = options.channels;
  const size_t stride = static_cast<size_t>(info.output_width) * static_cast<size_t>(options.channels);
  pixels.data.resize(stride * info.output_height);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = pixels.data.data() + stride * info.output_scanline;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  return true;
}

}  // namespace

absl::Status DecodeJpeg(std::string_view file, const DecodeOptions& options, Pixels& pixels) {
  ErrorHandler handler{};
  jpeg_decompress_struct info{};
  info.err = jpeg_std_error(&handler.manager);
  handler.manager.error_exit = &OnError;
  handler.manager.emit_message = &OnMessage;
  bool cmyk = false;
  int64_t too_large = 0;
  const bool done = Run(info, handler, file, options, pixels, cmyk, too_large);
  jpeg_destroy_decompress(&info);
  if (done) return absl::OkStatus();
  if (cmyk) return absl::InvalidArgumentError("a CMYK JPEG; only grey and RGB colour can be used");
  if (too_large > 0) return absl::InvalidArgumentError(absl::StrCat("it has ", too_large, " pixels, more than ", kMostPixels));
  return absl::InvalidArgumentError(absl::StrCat("damaged JPEG: ", handler.message));
}

}  // namespace lockstep::dataset
