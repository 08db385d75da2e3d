#include "ledger/file_digest.h"

#include <xxhash.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"

namespace lockstep {

std::string CheckFiles(const dataset::Index& index, const std::string& folder, const v1::LeafUse& use) {
  std::vector<int64_t> ids;
  std::vector<uint64_t> hashes;
  for (const uint64_t sample : use.samples()) {
    if (sample >= static_cast<uint64_t>(index.size())) return "";  // said elsewhere
    const std::string path = absl::StrCat(folder, "/", index.PathOf(static_cast<int64_t>(sample)));
    const absl::StatusOr<std::string> contents = ReadFile(path);
    if (!contents.ok()) return std::string(contents.status().message());
    ids.push_back(static_cast<int64_t>(sample));
    hashes.push_back(XXH3_64bits(contents->data(), contents->size()));
  }
  const uint64_t digest =
      XXH3_64bits_withSeed(hashes.data(), hashes.size() * sizeof(uint64_t), XXH3_64bits(ids.data(), ids.size() * sizeof(int64_t)));
  if (digest == use.digest()) return "";
  std::string text = "what was read is not what the files hold now:";
  for (const int64_t id : ids) absl::StrAppend(&text, " ", index.PathOf(id));
  return text;
}

}  // namespace lockstep
