#include <png.h>

#include <csetjmp>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "dataset/decode_format.h"

namespace lockstep::dataset {
namespace {

struct Reader {
  std::string_view left;
  char message[128];
};

void OnError(png_structp png, png_const_charp message) {
  auto* reader = static_cast<Reader*>(png_get_error_ptr(png));
  std::strncpy(reader->message, message, sizeof(reader->message) - 1);
  png_longjmp(png, 1);
}

void OnWarning(png_structp, png_const_charp) {}

void ReadBytes(png_structp png, png_bytep out, size_t bytes) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (reader->left.size() < bytes) png_error(png, "the file is cut short");
  std::memcpy(out, reader->left.data(), bytes);
  reader->left.remove_prefix(bytes);
}

struct Found {
  int bit_depth = 0;
  int64_t size = 0;
  int channels = 0;
};

// False with reader.message, or because of what `found` says. Only plain values live in here.
bool Run(png_structp png, png_infop info, Reader& reader, Pixels& pixels, Found& found) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_read_fn(png, &reader, &ReadBytes);
  png_read_info(png, info);
  const png_uint_32 width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  found.bit_depth = png_get_bit_depth(png, info);
  found.size = static_cast<int64_t>(width) * height;
  if (found.bit_depth == 16 || found.size > kMostPixels) return false;
  const int color = png_get_color_type(png, info);
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (color == PNG_COLOR_TYPE_GRAY && found.bit_depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  if ((color & PNG_COLOR_MASK_ALPHA) != 0) png_set_strip_alpha(png);
  const int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  found.channels = png_get_channels(png, info);
  const size_t stride = png_get_rowbytes(png, info);
  pixels.height = static_cast<int>(height);
  pixels.width = static_cast<int>(width);
  pixels.channels = found.channels;
  pixels.data.resize(stride * height);
  for (int pass = 0; pass < passes; ++pass) {
    for (png_uint_32 row = 0; row < height; ++row) png_read_row(png, pixels.data.data() + stride * row, nullptr);
  }
  png_read_end(png, nullptr);
  return true;
}

// Grey to three equal channels, in place from the end; colour to grey from the beginning.
void ConvertChannels(int wanted, Pixels& pixels) {
  const size_t count = static_cast<size_t>(pixels.height) * static_cast<size_t>(pixels.width);
  std::vector<uint8_t>& data = pixels.data;
  if (wanted == 3 && pixels.channels == 1) {
    data.resize(count * 3);
    for (size_t i = count; i-- > 0;) data[3 * i] = data[3 * i + 1] = data[3 * i + 2] = data[i];
  } else if (wanted == 1 && pixels.channels == 3) {
    for (size_t i = 0; i < count; ++i) {
      data[i] = static_cast<uint8_t>((299 * data[3 * i] + 587 * data[3 * i + 1] + 114 * data[3 * i + 2] + 500) / 1000);
    }
    data.resize(count);
  }
  pixels.channels = wanted;
}

}  // namespace

absl::Status DecodePng(std::string_view file, const DecodeOptions& options, Pixels& pixels) {
  Reader reader{file, {}};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, &OnError, &OnWarning);
  if (png == nullptr) return absl::ResourceExhaustedError("no memory to decode a PNG");
  png_infop info = png_create_info_struct(png);
  Found found;
  const bool done = info != nullptr && Run(png, info, reader, pixels, found);
  png_destroy_read_struct(&png, &info, nullptr);
  if (done && (found.channels == 1 || found.channels == 3)) {
    ConvertChannels(options.channels, pixels);
    return absl::OkStatus();
  }
  if (found.bit_depth == 16) return absl::InvalidArgumentError("a PNG of 16 bits a channel; only 8 bits can be used");
  if (found.size > kMostPixels)
    return absl::InvalidArgumentError(absl::StrCat("it has ", found.size, " pixels, more than ", kMostPixels));
  return absl::InvalidArgumentError(absl::StrCat("damaged PNG: ", reader.message));
}

}  // namespace lockstep::dataset
