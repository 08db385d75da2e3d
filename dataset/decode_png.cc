#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "dataset/decode_format.h"

namespace lockstep::dataset {
namespace {

constexpr int64_t kDecoderBytes = 128 << 10;  // zlib's window, and small things

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

struct Header {
  png_uint_32 width = 0, height = 0;
  int bit_depth = 0;
  int channels = 0;  // as it will be read
  int passes = 1;
  size_t stride = 0;
};

// False with reader.message, or after `header` is filled as far as was read. Only plain values live in these two, so that a longjmp
// passes nothing over.
bool ReadHeader(png_structp png, png_infop info, Reader& reader, Header& header) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_read_fn(png, &reader, &ReadBytes);
  // Comments and colour profiles may be large, and are not used.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(png, info);
  header.width = png_get_image_width(png, info);
  header.height = png_get_image_height(png, info);
  header.bit_depth = png_get_bit_depth(png, info);
  const int color = png_get_color_type(png, info);
  if (color == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (color == PNG_COLOR_TYPE_GRAY && header.bit_depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  if ((color & PNG_COLOR_MASK_ALPHA) != 0) png_set_strip_alpha(png);
  header.passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  header.channels = png_get_channels(png, info);
  header.stride = png_get_rowbytes(png, info);
  return true;
}

bool ReadRows(png_structp png, const Header& header, uint8_t* data) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  for (int pass = 0; pass < header.passes; ++pass) {
    for (png_uint_32 row = 0; row < header.height; ++row) png_read_row(png, data + header.stride * row, nullptr);
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

absl::Status CheckHeader(const Header& header, const DecodeOptions& options, Pixels& pixels) {
  if (header.bit_depth == 16) return absl::InvalidArgumentError("a PNG of 16 bits a channel; only 8 bits can be used");
  const int64_t size = static_cast<int64_t>(header.width) * header.height;
  pixels.decode_bytes = size * std::max(header.channels, options.channels) + 3 * static_cast<int64_t>(header.stride) + kDecoderBytes;
  return CheckSize(size, pixels.decode_bytes, options);
}

absl::Status DecodeWith(png_structp png, png_infop info, Reader& reader, const DecodeOptions& options, Pixels& pixels) {
  const auto damaged = [&reader] { return absl::InvalidArgumentError(absl::StrCat("damaged PNG: ", reader.message)); };
  Header header;
  if (!ReadHeader(png, info, reader, header)) return damaged();
  if (absl::Status status = CheckHeader(header, options, pixels); !status.ok()) return status;
  pixels.height = static_cast<int>(header.height);
  pixels.width = static_cast<int>(header.width);
  pixels.channels = header.channels;
  Reserve(pixels, static_cast<size_t>(header.width) * header.height * static_cast<size_t>(std::max(header.channels, options.channels)));
  pixels.data.resize(header.stride * header.height);
  if (!ReadRows(png, header, pixels.data.data())) return damaged();
  ConvertChannels(options.channels, pixels);
  return absl::OkStatus();
}

}  // namespace

absl::Status DecodePng(std::string_view file, const DecodeOptions& options, Pixels& pixels) {
  Reader reader{file, {}};
  png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, &OnError, &OnWarning);
  if (png == nullptr) return absl::ResourceExhaustedError("no memory to decode a PNG");
  png_infop info = png_create_info_struct(png);
  const auto destroy = absl::MakeCleanup([&png, &info] { png_destroy_read_struct(&png, &info, nullptr); });
  if (info == nullptr) return absl::ResourceExhaustedError("no memory to decode a PNG");
  return DecodeWith(png, info, reader, options, pixels);
}

}  // namespace lockstep::dataset
