#include "trainer/state_transfer.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "allreduce/rank_memory.h"
#include "base/status_macros.h"

namespace lockstep {
namespace {

// The first byte of a message says whether the file ends with it, or ended before.
constexpr size_t kChunk = allreduce::kMaxVerdictBytes - 1;
constexpr char kMore = 'm';
constexpr char kLast = 'l';
constexpr char kPast = 'p';

}  // namespace

absl::Status AppendFile(const std::string& path, std::ostream& out) {
  StateWriter writer(out);
  std::ifstream in(path, std::ios::binary);
  uint64_t bytes = in.is_open() ? std::filesystem::file_size(path) : 0;
  writer(bytes);
  if (bytes > 0) out << in.rdbuf();
  return out.good() ? absl::OkStatus() : absl::UnknownError(absl::StrCat("cannot copy ", path));
}

absl::Status ExtractFile(std::istream& in, const std::string& path) {
  uint64_t bytes = 0;
  StateReader reader(in);
  reader(bytes);
  if (in.good() && bytes == 0) {
    std::remove(path.c_str());
    return absl::OkStatus();
  }
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  std::string buffer(kChunk, '\0');
  while (in.good() && out.good() && bytes > 0) {
    const auto count = static_cast<std::streamsize>(std::min<uint64_t>(bytes, buffer.size()));
    in.read(buffer.data(), count);
    out.write(buffer.data(), in.gcount());
    bytes -= static_cast<uint64_t>(in.gcount());
  }
  out.close();
  return bytes == 0 && in.good() && out.good() ? absl::OkStatus() : absl::UnknownError(absl::StrCat("cannot write ", path));
}

absl::Status ShareFile(const ExchangeBytes& exchange, const std::vector<int>& sources, int me, bool receives, const std::string& path) {
  const auto turn = std::find(sources.begin(), sources.end(), me);
  const bool sends = turn != sources.end();
  std::ifstream in;
  std::ofstream out;
  if (sends) in.open(path, std::ios::binary);
  if (receives) out.open(path, std::ios::binary | std::ios::trunc);
  if ((sends && !in.is_open()) || (receives && !out.is_open())) return absl::UnknownError(absl::StrCat("cannot open ", path));
  const uint64_t bytes = sends ? std::filesystem::file_size(path) : 0;
  uint64_t from = static_cast<uint64_t>(turn - sources.begin()) * kChunk;
  std::string mine;
  for (bool last = false; !last; from += sources.size() * kChunk) {
    if (sends) {
      const bool past = from > bytes || (from == bytes && bytes > 0);
      const auto count = past ? size_t{0} : static_cast<size_t>(std::min<uint64_t>(bytes - from, kChunk));
      mine.assign(1 + count, past ? kPast : from + count == bytes ? kLast : kMore);
      in.seekg(static_cast<std::streamoff>(past ? 0 : from));
      in.read(mine.data() + 1, static_cast<std::streamsize>(count));
      if (!in.good()) return absl::UnknownError(absl::StrCat("cannot read ", path));
    }
    ASSIGN_OR_RETURN(const std::vector<std::string> all, exchange(mine));
    for (const int source : sources) {
      const std::string& chunk = all[static_cast<size_t>(source)];
      if (chunk.empty()) return absl::DataLossError(absl::StrCat("rank ", source, " was to send its state, and sent nothing"));
      last |= chunk.front() == kLast;
      if (receives) out.write(chunk.data() + 1, static_cast<std::streamsize>(chunk.size() - 1));
    }
  }
  if (receives) out.close();
  return receives && !out.good() ? absl::UnknownError(absl::StrCat("cannot write ", path)) : absl::OkStatus();
}

}  // namespace lockstep
