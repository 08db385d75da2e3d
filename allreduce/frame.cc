#include "allreduce/frame.h"

#include <xxhash.h>

#include <bit>
#include <memory>

#include "absl/strings/str_cat.h"

namespace lockstep::allreduce {
namespace {

static_assert(std::endian::native == std::endian::little, "headers travel as they lie in memory");

constexpr uint32_t kMagic = 0x4652534c;  // "LSRF"

uint64_t ChecksumOf(const FrameHeader& header) { return XXH3_64bits(&header, offsetof(FrameHeader, header_checksum)); }

uint64_t ChecksumOf(const Pieces& pieces) {
  if (pieces.size() == 1) return XXH3_64bits(pieces.front().data(), pieces.front().size());
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_64bits_reset(state.get());
  for (const auto piece : pieces) XXH3_64bits_update(state.get(), piece.data(), piece.size());
  return XXH3_64bits_digest(state.get());
}

}  // namespace

FrameHeader MakeFrameHeader(FrameType type, uint64_t generation, uint64_t sequence, const Pieces& payload) {
  FrameHeader header;
  header.magic = kMagic;
  header.type = type;
  header.generation = generation;
  header.sequence = sequence;
  for (const auto piece : payload) header.payload_bytes += piece.size();
  header.payload_checksum = ChecksumOf(payload);
  header.header_checksum = ChecksumOf(header);
  return header;
}

absl::Status CheckHeader(const FrameHeader& header, uint64_t generation) {
  if (header.magic != kMagic) return absl::DataLossError("a frame begins with other bytes than frames do");
  if (header.header_checksum != ChecksumOf(header)) return absl::DataLossError("the header of a frame has a wrong checksum");
  if (header.generation != generation) {
    return absl::FailedPreconditionError(absl::StrCat(Describe(header), " is of generation ", header.generation, ", not ", generation));
  }
  return absl::OkStatus();
}

absl::Status CheckPayload(const FrameHeader& header, std::span<const std::byte> payload) {
  if (XXH3_64bits(payload.data(), payload.size()) == header.payload_checksum) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(Describe(header), " has a wrong checksum"));
}

std::string Describe(const FrameHeader& header) {
  const char* what = "a frame of unknown type";
  switch (header.type) {
    case FrameType::kSums: what = "the frame of sums"; break;
    case FrameType::kResult: what = "the frame of results"; break;
    case FrameType::kVerdict: what = "the verdict"; break;
    case FrameType::kVerdictOnly: what = "the lone verdict"; break;
    case FrameType::kGiveUp: what = "the last word"; break;
    case FrameType::kAlive: what = "the sign of life"; break;
  }
  return absl::StrCat(what, " ", header.sequence, " (", header.payload_bytes, " bytes)");
}

}  // namespace lockstep::allreduce
