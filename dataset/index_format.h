#pragma once
// The index file's parts, little-endian: header, class names (each with a 4-byte length before it), sample table, strings. A
// worked example is in docs/data.md.

#include <cstddef>
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
  uint64_t table_hash;    // XXH3-64 from after this header to strings_offset
  uint64_t strings_hash;  // XXH3-64 from strings_offset to the file's end
  uint64_t hash;          // XXH3-64 of the fields before: it stands for the whole file
};
static_assert(sizeof(IndexHeader) == 72);
inline constexpr size_t kHashedHeaderBytes = offsetof(IndexHeader, hash);

struct IndexEntry {
  uint64_t path_offset;  // into the strings
  uint32_t path_bytes;
  int32_t label;
  uint64_t bytes;
};
static_assert(sizeof(IndexEntry) == 24);

}  // namespace lockstep::dataset
