#pragma once
// The index file's parts, little-endian: header, class names (each with a 4-byte length), sample table, strings. See
// docs/formats/index.md.

#include <cstdint>

namespace lockstep::dataset {

inline constexpr char kIndexMagic[8] = {'L', 'S', 'I', 'N', 'D', 'E', 'X', '1'};

struct IndexHeader {
  char magic[8];
  uint64_t samples;
  uint64_t classes;
  uint64_t table_offset;    // from the file's beginning
  uint64_t strings_offset;  // from the file's beginning
  uint64_t file_bytes;
  uint64_t hash;  // XXH3-64 of the file from after this header to its end
};
static_assert(sizeof(IndexHeader) == 56);

struct IndexEntry {
  uint64_t path_offset;  // into the strings
  uint32_t path_bytes;
  int32_t label;
  uint64_t bytes;
};
static_assert(sizeof(IndexEntry) == 24);

}  // namespace lockstep::dataset
