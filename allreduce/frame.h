#pragma once
// What ranks of different hosts say to each other after the handshake: frames of a header and a payload, each with a checksum
// (XXH3-64). docs/allreduce.md explains them with an example. Pure functions.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace lockstep::allreduce {

enum class FrameType : uint32_t {
  kSums = 1,     // a chunk of the sender's subtree sums, one subtree after another, to the rank that reduces the chunk
  kResult = 2,   // a chunk of the reduced vector, from the rank that reduced it
  kVerdict = 3,  // opens an exchange with gradients
  kVerdictOnly = 4,
  kGiveUp = 5,  // the last: why the sender ends the collective, as text
  kAlive = 6,   // empty
};

struct FrameHeader {
  uint32_t magic = 0;
  FrameType type = FrameType::kGiveUp;
  uint64_t generation = 0;
  // kSums, kResult: buckets before this one since the generation began. Verdicts: exchanges before this one.
  uint64_t sequence = 0;
  uint64_t payload_bytes = 0;
  uint64_t payload_checksum = 0;
  uint64_t header_checksum = 0;  // of all the above
};
static_assert(sizeof(FrameHeader) == 48);

constexpr size_t kMaxGiveUpBytes = 512;

using Pieces = std::vector<std::span<const std::byte>>;

FrameHeader MakeFrameHeader(FrameType type, uint64_t generation, uint64_t sequence, const Pieces& payload);

// DataLoss: not a header, or damaged. FailedPrecondition: of another generation.
absl::Status CheckHeader(const FrameHeader& header, uint64_t generation);
// DataLoss.
absl::Status CheckPayload(const FrameHeader& header, std::span<const std::byte> payload);

std::string Describe(const FrameHeader& header);

}  // namespace lockstep::allreduce
